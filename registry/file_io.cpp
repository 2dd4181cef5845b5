#include "registry/file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "registry/error.h"

namespace dsctl::registry {

namespace fs = std::filesystem;

void FileDescriptor::reset() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void throw_errno(const fs::path& path, std::string_view what) {
  const std::string reason = std::strerror(errno);
  throw Error(path.string() + ": " + std::string(what) + ": " + reason);
}

FileDescriptor open_file(const fs::path& path, int flags, int mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) throw_errno(path, "can't open");
  return FileDescriptor(fd);
}

void write_all(int fd, std::string_view data, const fs::path& path) {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't write");
    data.remove_prefix(static_cast<size_t>(n));
  }
}

void sync_file(int fd, const fs::path& path) {
  while (::fsync(fd) != 0) {
    if (errno != EINTR) throw_errno(path, "can't flush to disk");
  }
}

void sync_dir(const fs::path& path) {
  const FileDescriptor dir = open_file(path, O_RDONLY | O_DIRECTORY);
  sync_file(dir.get(), path);
}

std::optional<std::string> read_small_file(const fs::path& path, size_t max_bytes) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0 && (errno == ENOENT || errno == ENOTDIR)) return std::nullopt;
  if (fd < 0) throw_errno(path, "can't open");
  const FileDescriptor file(fd);
  struct stat status {};
  if (::fstat(fd, &status) != 0) throw_errno(path, "can't stat");
  if (!S_ISREG(status.st_mode)) throw Error(path.string() + ": is no regular file");
  std::string content;
  char buffer[65536];
  while (true) {
    const ssize_t n = ::read(fd, buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't read");
    if (n == 0) return content;
    content.append(buffer, static_cast<size_t>(n));
    if (content.size() > max_bytes) {
      throw Error(path.string() + ": larger than the " + std::to_string(max_bytes) +
                  " bytes expected at most");
    }
  }
}

void replace_file(const fs::path& path, const fs::path& temporary, std::string_view content) {
  {
    const FileDescriptor file = open_file(temporary, O_WRONLY | O_CREAT | O_TRUNC);
    write_all(file.get(), content, temporary);
    sync_file(file.get(), temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) throw_errno(path, "can't replace");
  sync_dir(path.parent_path());
}

void create_directories_synced(const fs::path& path) {
  std::error_code ignored;  // what is wrong, mkdir tells
  if (fs::is_directory(path, ignored)) return;
  const fs::path parent = path.parent_path();
  if (!parent.empty() && parent != path) create_directories_synced(parent);
  if (::mkdir(path.c_str(), 0755) != 0 && errno != EEXIST) {
    throw_errno(path, "can't create the directory");
  }
  if (!fs::is_directory(path, ignored)) {
    throw Error(path.string() + ": exists and is no directory");
  }
  sync_dir(parent.empty() ? fs::path(".") : parent);
}

}  // namespace dsctl::registry
