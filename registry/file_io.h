// The few file operations that the store is built of: descriptors that close themselves, reads with
// a limit, writes that are on disk when they return. Errors name the path and the reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace dsctl::registry {

/// Owns a file descriptor.
class FileDescriptor {
 public:
  FileDescriptor() = default;
  explicit FileDescriptor(int fd) : fd_(fd) {}
  ~FileDescriptor() { reset(); }
  FileDescriptor(FileDescriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileDescriptor& operator=(FileDescriptor&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_ = -1;
};

/// Throws Error "<path>: <what>: <reason of errno>".
[[noreturn]] void throw_errno(const std::filesystem::path& path, std::string_view what);

/// open(2) with O_CLOEXEC; throws Error.
FileDescriptor open_file(const std::filesystem::path& path, int flags, int mode = 0644);

/// Writes all of `data`; throws Error naming `path`.
void write_all(int fd, std::string_view data, const std::filesystem::path& path);

/// Flushes file or directory to disk; throws Error naming `path`.
void sync_file(int fd, const std::filesystem::path& path);
void sync_dir(const std::filesystem::path& path);

/// The content of a file, or nothing when it is not there. Throws Error when it is larger than
/// `max_bytes` or no regular file.
std::optional<std::string> read_small_file(const std::filesystem::path& path, size_t max_bytes);

/// Puts `content` at `path` by way of `temporary`, which lies on the same file system: afterwards
/// the old content or the new is there, whatever happens.
void replace_file(const std::filesystem::path& path, const std::filesystem::path& temporary,
                  std::string_view content);

/// Creates `path` and what is missing above it, each entry on disk when this returns.
void create_directories_synced(const std::filesystem::path& path);

}  // namespace dsctl::registry
