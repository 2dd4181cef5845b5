// Staging: where blobs are before they are visible.
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <random>
#include <vector>

#include "registry/blob_store.h"
#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/import_record.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kDirPrefix = ".dsctl-staging-";
constexpr int64_t kStartTimeoutMs = 60'000;
constexpr size_t kChunkBytes = 4 << 20;  // large enough that the reads cost nothing beside the hash

std::string random_name() {
  std::random_device random;
  char text[32];
  std::snprintf(text, sizeof(text), "%d-%08x%08x", static_cast<int>(::getpid()), random(),
                random());
  return std::string(kDirPrefix) + text;
}

/// True when no process works in the staging directory `dir` any more. The caller holds the store's
/// lock, under which directory and lock are made, so a directory without a lock has no owner
/// either.
bool is_abandoned(const fs::path& dir) {
  const int fd = ::open((dir / "lock").c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) return errno == ENOENT;
  const FileDescriptor lock(fd);
  return ::flock(fd, LOCK_EX | LOCK_NB) == 0;
}

struct stat status_of(int fd, const fs::path& path) {
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_errno(path, "can't stat");
  return status;
}

/// Reads all of `in`, hashes it, and writes it to `out` unless that is -1.
Digest hash_file(int in, int out, const fs::path& path, const fs::path& out_path,
                 int64_t size_bytes, const Progress& progress) {
  ::posix_fadvise(in, 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<std::byte> chunk(kChunkBytes);
  Hasher hasher;
  const std::string what = path.filename().string();
  int64_t done = 0;
  while (true) {
    const ssize_t n = ::read(in, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't read");
    if (n == 0) break;
    hasher.update(std::span(chunk).first(static_cast<size_t>(n)));
    if (out >= 0) {
      write_all(out, {reinterpret_cast<const char*>(chunk.data()), static_cast<size_t>(n)},
                out_path);
    }
    done += n;
    if (progress) progress(what, done, size_bytes);
  }
  return hasher.finish();
}

void check_unchanged(const struct stat& before, int fd, const fs::path& path) {
  const struct stat after = status_of(fd, path);
  if (before.st_size != after.st_size ||
      modification_time_ns(before) != modification_time_ns(after)) {
    throw Error(path.string() +
                ": was written to while it was read; try again when it is complete");
  }
}

/// Reserves the space of a copy, so that a full disk is told before hours of writing.
void reserve_space(int fd, int64_t size_bytes, const fs::path& path) {
  if (::fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, size_bytes) == 0 || errno != ENOSPC) return;
  std::error_code ignored;
  const auto space = fs::space(path.parent_path(), ignored);
  throw Error(path.parent_path().parent_path().string() + ": a copy needs " +
              std::to_string(size_bytes) + " bytes, " + std::to_string(space.available) +
              " are free; free some, or put file and store on one file system so that it can be "
              "linked");
}

bool make_hard_link(int fd, const fs::path& path, const fs::path& target) {
  // By descriptor, so that the linked file is the opened one even if the path changes meanwhile.
  const std::string opened = "/proc/self/fd/" + std::to_string(fd);
  if (::linkat(AT_FDCWD, opened.c_str(), AT_FDCWD, target.c_str(), AT_SYMLINK_FOLLOW) == 0) {
    return true;
  }
  std::error_code error;
  const fs::path real = fs::canonical(path, error);
  if (error || ::link(real.c_str(), target.c_str()) != 0) return false;
  const struct stat opened_status = status_of(fd, path);
  struct stat linked {};
  if (::stat(target.c_str(), &linked) == 0 && linked.st_ino == opened_status.st_ino &&
      linked.st_dev == opened_status.st_dev) {
    return true;
  }
  ::unlink(target.c_str());
  return false;
}

}  // namespace

std::vector<fs::path> abandoned_staging(const BlobStore& store) {
  std::vector<fs::path> dirs;
  std::error_code error;  // what can't be read is another user's: his create cleans it
  for (fs::directory_iterator entry(store.blobs_dir(), error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().filename().string().starts_with(kDirPrefix)) dirs.push_back(entry->path());
  }
  std::erase_if(dirs, [](const fs::path& dir) { return !is_abandoned(dir); });
  return dirs;
}

Staging::Staging(const BlobStore& store, const std::function<void(std::string_view)>& waiting)
    : store_(store) {
  create_directories_synced(store.blobs_dir());
  const StoreLock lock(store.root(), "start of an import", kStartTimeoutMs, waiting);
  for (const fs::path& dir : abandoned_staging(store)) {
    std::error_code ignored;
    fs::remove_all(dir, ignored);
  }
  dir_ = store.blobs_dir() / random_name();
  if (::mkdir(dir_.c_str(), 0755) != 0) throw_errno(dir_, "can't create the directory");
  FileDescriptor file = open_file(dir_ / "lock", O_RDWR | O_CREAT | O_EXCL);
  // Waits: somebody who asks whether the directory is abandoned holds it for a moment.
  if (::flock(file.get(), LOCK_EX) != 0) throw_errno(dir_ / "lock", "can't lock");
  lock_fd_ = file.release();
}

Staging::~Staging() {
  std::error_code ignored;
  fs::remove_all(dir_, ignored);
  ::close(lock_fd_);
}

fs::path Staging::next_path() {
  return dir_ / std::to_string(n_files_.fetch_add(1));
}

std::optional<StagedBlob> Staging::known_file(const fs::path& path, int fd, ImportMode mode) {
  const struct stat status = status_of(fd, path);
  for (const auto& [digest, record] : ImportRecord::load_all(store_.root())) {
    if (!record.vouches_for(status)) continue;
    StagedBlob known;
    known.path = next_path();
    // A link of the blob's own, so that nobody's `rm` takes it away before it is published.
    if (::link(store_.path_of(digest).c_str(), known.path.c_str()) != 0) continue;
    struct stat blob {};
    const bool usable = ::stat(known.path.c_str(), &blob) == 0 && blob.st_size == status.st_size &&
                        !record.is_changed_link(blob) &&
                        !(mode == ImportMode::kCopy && record.is_link(blob));
    if (!usable) {
      ::unlink(known.path.c_str());
      continue;
    }
    known.digest = digest;
    known.size_bytes = status.st_size;
    known.method = record.is_link(blob) ? ImportMethod::kHardLink : ImportMethod::kCopy;
    known.import_record = record.to_json();
    return known;
  }
  return std::nullopt;
}

StagedBlob Staging::stage_file(const fs::path& path, ImportMode mode, const Progress& progress) {
  const FileDescriptor in = open_file(path, O_RDONLY | O_NONBLOCK);  // a pipe must not block
  const struct stat before = status_of(in.get(), path);
  if (!S_ISREG(before.st_mode)) throw Error(path.string() + ": is no regular file");
  if (const auto known = known_file(path, in.get(), mode)) return *known;
  // What is about to be a blob must survive a power cut; a fresh download may be in memory only.
  sync_file(in.get(), path);
  StagedBlob staged;
  staged.size_bytes = before.st_size;
  staged.path = next_path();
  FileDescriptor out = open_file(staged.path, O_RDWR | O_CREAT | O_EXCL);
  if (::ioctl(out.get(), FICLONE, in.get()) == 0) {
    staged.method = ImportMethod::kReflink;
    staged.digest = hash_file(out.get(), -1, path, staged.path, before.st_size, progress);
  } else if (mode == ImportMode::kLink &&
             (::unlink(staged.path.c_str()) == 0 && make_hard_link(in.get(), path, staged.path))) {
    staged.method = ImportMethod::kHardLink;
    out = FileDescriptor();
    staged.digest = hash_file(in.get(), -1, path, staged.path, before.st_size, progress);
  } else {
    // One pass: what is hashed is what is written, and the original is read once. copy_file_range
    // would read it a second time for the hash and gains nothing where reflinks are impossible.
    staged.method = ImportMethod::kCopy;
    if (mode == ImportMode::kLink) out = open_file(staged.path, O_RDWR | O_CREAT | O_EXCL);
    reserve_space(out.get(), before.st_size, staged.path);
    staged.digest = hash_file(in.get(), out.get(), path, staged.path, before.st_size, progress);
  }
  check_unchanged(before, in.get(), path);
  if (out) sync_file(out.get(), staged.path);
  ImportRecord record = ImportRecord::of(path, before);
  record.hard_link = staged.method == ImportMethod::kHardLink;
  staged.import_record = record.to_json();
  return staged;
}

StagedBlob Staging::stage_bytes(std::string_view content) {
  Writer writer(*this);
  writer.write(std::as_bytes(std::span(content)));
  return writer.finish(std::nullopt);
}

Staging::Writer::Writer(Staging& staging)
    : path_(staging.next_path()), fd_(open_file(path_, O_WRONLY | O_CREAT | O_EXCL).release()) {}

Staging::Writer::~Writer() {
  if (fd_ >= 0) ::close(fd_);
}

void Staging::Writer::write(std::span<const std::byte> data) {
  hasher_.update(data);
  write_all(fd_, {reinterpret_cast<const char*>(data.data()), data.size()}, path_);
  size_bytes_ += static_cast<int64_t>(data.size());
}

StagedBlob Staging::Writer::finish(const std::optional<Digest>& expected) {
  StagedBlob staged;
  staged.digest = hasher_.finish();
  if (expected && *expected != staged.digest) {
    throw Error("digest mismatch, expected \"" + expected->to_string() + "\", got \"" +
                staged.digest.to_string() + "\"");
  }
  sync_file(fd_, path_);
  ::close(std::exchange(fd_, -1));
  staged.size_bytes = size_bytes_;
  staged.path = path_;
  return staged;
}

}  // namespace dsctl::registry
