#include "registry/local_bytes.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <openssl/evp.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <memory>
#include <string_view>

#include "registry/error.h"
#include "registry/file_io.h"
#include "registry/import_record.h"
#include "registry/sources/lfs_pointer.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/remote_url.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 4 << 20;

std::optional<int64_t> size_of(const fs::path& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  return status.st_size;
}

std::string etag_of(const RemoteFile& file) {
  return file.sha256 ? file.sha256->hex() : file.git_sha1;
}

fs::path note_path(const fs::path& dir, const RemoteFile& file) {
  return dir / ".cache" / "huggingface" / "download" / (file.path + ".metadata");
}

fs::path lfs_object(const fs::path& dir, const Digest& oid) {
  const std::string hex = oid.hex();
  return dir / ".git" / "lfs" / "objects" / hex.substr(0, 2) / hex.substr(2, 2) / hex;
}

/// Hashes a file as git does ("blob SIZE\0" first), or with SHA-256.
std::string hash_of(int fd, const fs::path& path, int64_t size_bytes, bool as_git,
                    const Progress& progress) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&::EVP_MD_CTX_free)> context(::EVP_MD_CTX_new(),
                                                                          &::EVP_MD_CTX_free);
  ::EVP_DigestInit_ex(context.get(), as_git ? ::EVP_sha1() : ::EVP_sha256(), nullptr);
  if (as_git) {
    const std::string head = "blob " + std::to_string(size_bytes);
    ::EVP_DigestUpdate(context.get(), head.c_str(), head.size() + 1);
  }
  ::posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
  std::vector<char> chunk(kChunkBytes);
  int64_t done = 0;
  for (;;) {
    const ssize_t n = ::read(fd, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't read");
    if (n == 0) break;
    ::EVP_DigestUpdate(context.get(), chunk.data(), static_cast<size_t>(n));
    done += n;
    if (progress) progress(path.filename().string(), done, size_bytes);
  }
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  ::EVP_DigestFinal_ex(context.get(), bytes, &size);
  std::string hex;
  for (unsigned i = 0; i < size; ++i) {
    hex += "0123456789abcdef"[bytes[i] >> 4];
    hex += "0123456789abcdef"[bytes[i] & 15];
  }
  return hex;
}

/// Copies without reading through this process where the kernel can.
void copy_bytes(int in, int out, const fs::path& source, const fs::path& target) {
  for (;;) {
    const ssize_t n = ::copy_file_range(in, nullptr, out, nullptr, size_t{1} << 30, 0);
    if (n > 0) continue;
    if (n == 0) return;
    if (errno != EXDEV && errno != EINVAL && errno != EOPNOTSUPP && errno != ENOSYS) {
      throw_errno(target, "can't copy " + source.string());
    }
    break;
  }
  std::vector<char> chunk(kChunkBytes);
  for (;;) {
    const ssize_t n = ::read(in, chunk.data(), chunk.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(source, "can't read");
    if (n == 0) return;
    write_all(out, {chunk.data(), static_cast<size_t>(n)}, target);
  }
}

/// The file in huggingface_hub's folder of unfinished downloads whose name ends ".ETAG.incomplete".
std::optional<fs::path> find_incomplete(const fs::path& folder, const std::string& etag) {
  const std::string ending = "." + etag + ".incomplete";
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    if (entry->path().filename().string().ends_with(ending)) return entry->path();
  }
  return std::nullopt;
}

}  // namespace

LocalPlaces LocalPlaces::of(const RemoteRef& ref, const fs::path& local_dir) {
  LocalPlaces places;
  places.dir = local_dir;
  const std::string home = environment_value("HOME");
  const fs::path cache = home.empty() ? fs::path() : fs::path(home) / ".cache";
  const size_t slash = ref.repo.find('/');
  if (ref.kind == RemoteRef::Kind::kHuggingFace) {
    fs::path hub = environment_value("HF_HUB_CACHE");
    const std::string hf_home = environment_value("HF_HOME");
    if (hub.empty() && !hf_home.empty()) hub = fs::path(hf_home) / "hub";
    if (hub.empty() && !cache.empty()) hub = cache / "huggingface" / "hub";
    if (hub.empty()) return places;
    places.hub_cache =
        hub / ("models--" + ref.repo.substr(0, slash) + "--" + ref.repo.substr(slash + 1));
  } else if (ref.kind == RemoteRef::Kind::kModelScope) {
    fs::path hub = environment_value("MODELSCOPE_CACHE");
    if (hub.empty() && !cache.empty()) hub = cache / "modelscope" / "hub";
    if (hub.empty()) return places;
    std::string name;  // as ModelScope's client writes it
    for (const char c : ref.repo.substr(slash + 1))
      name += c == '.' ? std::string("___") : std::string(1, c);
    places.modelscope_cache = hub / "models" / ref.repo.substr(0, slash) / name;
  }
  return places;
}

std::vector<LocalBytes> find_whole(const RemoteFile& file, const LocalPlaces& places) {
  std::vector<LocalBytes> found;
  const auto add = [&](const fs::path& path, bool may_share) {
    if (size_of(path) == file.size_bytes) found.push_back({path, may_share});
  };
  // Without a digest there would be no telling whether it is the same content.
  const std::string etag = etag_of(file);
  if (etag.empty() || file.size_bytes <= 0) return found;
  if (!file.local_copy.empty()) add(file.local_copy, false);
  if (!places.dir.empty() && file.sha256) add(lfs_object(places.dir, *file.sha256), true);
  if (!places.hub_cache.empty()) add(places.hub_cache / "blobs" / etag, true);
  if (!places.modelscope_cache.empty()) add(places.modelscope_cache / file.path, true);
  return found;
}

std::optional<LocalBytes> find_beginning(const RemoteFile& file, const LocalPlaces& places) {
  const std::string etag = etag_of(file);
  if (etag.empty() || !file.sha256) return std::nullopt;
  const auto is_beginning = [&](const fs::path& path) {
    const auto size = size_of(path);
    return size && *size > 0 && *size <= file.size_bytes;
  };
  if (!places.dir.empty()) {
    const fs::path part = places.dir / ".git" / "lfs" / "incomplete" / (etag + ".part");
    if (is_beginning(part)) return LocalBytes{part, true};
    const auto incomplete = find_incomplete(note_path(places.dir, file).parent_path(), etag);
    if (incomplete && is_beginning(*incomplete)) return LocalBytes{*incomplete, true};
  }
  if (!places.hub_cache.empty()) {
    const fs::path part = places.hub_cache / "blobs" / (etag + ".incomplete");
    if (is_beginning(part)) return LocalBytes{part, false};
  }
  return std::nullopt;
}

bool has_content(const fs::path& path, const RemoteFile& file, const Progress& progress) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!fd || ::fstat(fd.get(), &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_size != file.size_bytes) {
    return false;
  }
  if (file.sha256) {
    return hash_of(fd.get(), path, file.size_bytes, /*as_git=*/false, progress) ==
           file.sha256->hex();
  }
  if (file.git_sha1.empty()) return true;
  return hash_of(fd.get(), path, file.size_bytes, /*as_git=*/true, progress) == file.git_sha1;
}

void place_content(const LocalBytes& source, const fs::path& target) {
  const fs::path temporary = target.string() + ".dsctl-" + std::to_string(::getpid());
  ::unlink(temporary.c_str());
  const FileDescriptor in = open_file(source.path, O_RDONLY);
  try {
    FileDescriptor out = open_file(temporary, O_WRONLY | O_CREAT | O_EXCL);
    if (::ioctl(out.get(), FICLONE, in.get()) != 0) {
      const std::string opened = "/proc/self/fd/" + std::to_string(in.get());
      const bool linked =
          source.may_share && ::unlink(temporary.c_str()) == 0 &&
          ::linkat(AT_FDCWD, opened.c_str(), AT_FDCWD, temporary.c_str(), AT_SYMLINK_FOLLOW) == 0;
      if (!linked) {
        if (source.may_share) out = open_file(temporary, O_WRONLY | O_CREAT | O_EXCL);
        copy_bytes(in.get(), out.get(), source.path, temporary);
      }
    }
    sync_file(in.get(), source.path);
    sync_file(out.get(), temporary);
    if (::rename(temporary.c_str(), target.c_str()) != 0) throw_errno(target, "can't rename to it");
    // rename(2) of two names of one file does nothing and leaves both.
    ::unlink(temporary.c_str());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_dir(target.parent_path());
}

bool is_noted(const fs::path& dir, const RemoteFile& file) {
  struct stat status {};
  const std::string etag = etag_of(file);
  if (etag.empty() || ::stat((dir / file.path).c_str(), &status) != 0 || !S_ISREG(status.st_mode) ||
      status.st_size != file.size_bytes) {
    return false;
  }
  const auto text = read_small_file(note_path(dir, file), 4096);
  if (!text) return false;
  // commit, ETag, time; one a line
  const size_t first = text->find('\n');
  const size_t second = first == std::string::npos ? first : text->find('\n', first + 1);
  if (second == std::string::npos) return false;
  if (std::string_view(*text).substr(first + 1, second - first - 1) != etag) return false;
  double time = 0;
  const char* begin = text->data() + second + 1;
  const auto [end, error] = std::from_chars(begin, text->data() + text->size(), time);
  if (error != std::errc() || end == begin) return false;
  // As huggingface_hub does: a second for file systems with coarse times.
  return static_cast<double>(modification_time_ns(status)) * 1e-9 - 1 <= time;
}

void write_note(const fs::path& dir, const RemoteFile& file, const Digest& sha256,
                const std::string& revision) {
  const std::string etag = etag_of(file).empty() ? sha256.hex() : etag_of(file);
  const fs::path path =
      local_path_below(dir, ".cache/huggingface/download/" + file.path + ".metadata");
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  char time[64];
  std::snprintf(time, sizeof(time), "%.6f", now);
  replace_file(path, path.string() + ".dsctl-" + std::to_string(::getpid()),
               revision + "\n" + etag + "\n" + time + "\n");
}

}  // namespace dsctl::registry
