#include "gguf/new_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

constexpr std::string_view kTempMark = ".tmp-";

const char* or_current(const std::filesystem::path& directory) {
  return directory.empty() ? "." : directory.c_str();
}

/// Removes temporaries of `path` whose writers are gone: nobody holds their lock.
void remove_abandoned(const std::filesystem::path& path) {
  const std::string prefix = path.filename().string() + std::string(kTempMark);
  std::error_code error;
  std::filesystem::directory_iterator entry(or_current(path.parent_path()), error);
  for (const std::filesystem::directory_iterator end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(prefix)) continue;
    if (name.find_first_not_of("0123456789", prefix.size()) != std::string::npos) continue;
    const int fd = ::open(entry->path().c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) continue;
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) ::unlink(entry->path().c_str());
    ::close(fd);
  }
}

}  // namespace

NewFile::NewFile(std::filesystem::path path) : path_(std::move(path)) {
  remove_abandoned(path_);
  // The process id keeps two writers of one path apart; O_EXCL makes sure.
  temp_path_ = path_.string() + std::string(kTempMark) + std::to_string(::getpid());
  while (true) {
    fd_ = ::open(temp_path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0) fail("can't be created");
    ::flock(fd_, LOCK_EX | LOCK_NB);  // refused by some network file systems, and then not needed
    struct stat status {};
    if (::fstat(fd_, &status) == 0 && status.st_nlink > 0) return;
    ::close(std::exchange(fd_, -1));  // taken for abandoned between the two calls
  }
}

NewFile::~NewFile() {
  if (fd_ >= 0) ::close(fd_);
  if (!is_published_) ::unlink(temp_path_.c_str());
}

void NewFile::fail(const std::string& what) const {
  throw Error(path_.string() + ": " + what + ": " + std::strerror(errno));
}

void NewFile::reserve(int64_t size_bytes) {
  const auto fail_full = [&](int64_t free) {
    throw Error(path_.string() + ": needs " + printable_size(size_bytes) + ", but only " +
                printable_size(free) + " are free on its file system: make room or write it " +
                "elsewhere");
  };
  const int64_t free = free_bytes(path_.parent_path());
  if (size_bytes > free) fail_full(free);
  if (::ftruncate(fd_, size_bytes) != 0) fail("can't be made " + printable_size(size_bytes));
  // Not posix_fallocate: where the file system can't, that writes every block.
  if (size_bytes == 0 || ::fallocate(fd_, 0, 0, size_bytes) == 0) return;
  if (errno == ENOSPC || errno == EDQUOT) fail_full(free_bytes(path_.parent_path()));
  if (errno == EFBIG) fail("can't be made " + printable_size(size_bytes));
}

void NewFile::write_at(int64_t offset_bytes, std::span<const std::byte> data) {
  while (!data.empty()) {
    const ssize_t written = ::pwrite(fd_, data.data(), data.size(), offset_bytes);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) fail("can't be written");
    offset_bytes += written;
    data = data.subspan(static_cast<size_t>(written));
  }
}

void NewFile::write_at(int64_t offset_bytes, std::string_view text) {
  write_at(offset_bytes, std::as_bytes(std::span(text)));
}

void NewFile::sync() {
  if (::fdatasync(fd_) != 0) fail("can't be synced");
}

void NewFile::publish() {
  if (::fsync(fd_) != 0) fail("can't be synced");
  if (::close(std::exchange(fd_, -1)) != 0) fail("can't be closed");
  if (::rename(temp_path_.c_str(), path_.c_str()) != 0) fail("can't be renamed into place");
  is_published_ = true;
  sync_directory(path_.parent_path());
}

void check_out(const std::filesystem::path& out, const std::vector<std::filesystem::path>& inputs,
               IfExists if_exists) {
  std::error_code error;
  const std::filesystem::path parent = out.parent_path().empty() ? "." : out.parent_path();
  if (!std::filesystem::is_directory(parent, error)) {
    throw Error(out.string() + ": there is no directory " + parent.string());
  }
  const std::filesystem::file_status status = std::filesystem::status(out, error);
  if (!std::filesystem::exists(status)) return;
  if (!std::filesystem::is_regular_file(status)) {
    throw Error(out.string() + ": is " +
                (std::filesystem::is_directory(status) ? "a directory" : "no regular file") +
                ", expected the name of a file to write");
  }
  for (const std::filesystem::path& input : inputs) {
    if (!std::filesystem::equivalent(out, input, error)) continue;
    throw Error(out.string() + ": is one of the files to be read: give another name");
  }
  if (if_exists == IfExists::kFail) {
    throw Error(out.string() + ": exists already; --force replaces it");
  }
}

void sync_directory(const std::filesystem::path& directory) {
  const int fd = ::open(or_current(directory), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return;  // not readable to us: a rename is still atomic, only later durable
  ::fsync(fd);
  ::close(fd);
}

int64_t free_bytes(const std::filesystem::path& directory) {
  struct statvfs status {};
  if (::statvfs(or_current(directory), &status) != 0) return std::numeric_limits<int64_t>::max();
  return static_cast<int64_t>(status.f_bavail) * static_cast<int64_t>(status.f_frsize);
}

}  // namespace dsctl::gguf
