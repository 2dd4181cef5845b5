// Moves bytes from file to file as the system does it best, without a mapping: the memory it takes
// does not depend on what it moves. Internal to gguf/.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace dsctl::gguf {

/// Told now and then how far a long step is, in bytes. May throw to give up.
using Progress = std::function<void(std::string_view what, int64_t done, int64_t total)>;

/// An open file that knows its name. Movable, not copyable.
class DataFile {
 public:
  /// Opens `path` with the flags of open(2); throws Error naming it.
  DataFile(std::filesystem::path path, int flags);
  ~DataFile();
  DataFile(DataFile&& other) noexcept;
  DataFile& operator=(DataFile&&) = delete;
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;

  int fd() const { return fd_; }
  const std::filesystem::path& path() const { return path_; }
  struct stat status() const;
  /// Writes `text` at `offset_bytes`; throws Error.
  void write_at(int64_t offset_bytes, std::string_view text) const;
  /// Throws Error "<path>: <what>: <reason of errno>".
  [[noreturn]] void fail(std::string_view what) const;

 private:
  std::filesystem::path path_;
  int fd_ = -1;
};

/// Bytes that lie at one place of one file and belong at another place of another.
struct CopyPart {
  int in_fd = -1;
  int64_t in_offset_bytes = 0;
  int out_fd = -1;
  int64_t out_offset_bytes = 0;
  int64_t size_bytes = 0;
  const std::filesystem::path* in_path = nullptr;  // for messages
  const std::filesystem::path* out_path = nullptr;
};

/// How many bytes went which way.
struct CopyCounts {
  int64_t shared = 0;   // by reflink: no byte was moved
  int64_t kernel = 0;   // by copy_file_range
  int64_t through = 0;  // by read and write
};

/// Brings every part to its place: shares blocks (FICLONERANGE) where file system and alignment
/// allow, else lets the kernel copy, else reads and writes. `progress` hears the bytes done so far
/// of all. Throws Error naming the file; what `progress` throws comes through.
CopyCounts copy_parts(std::span<const CopyPart> parts, std::string_view what,
                      const Progress& progress);

/// Reads every part at both places and throws Error at the first byte that differs.
void compare_parts(std::span<const CopyPart> parts, std::string_view what,
                   const Progress& progress);

/// Writes what is cached of the file to disk and takes it out of the cache, so that the next read
/// comes from the disk. Throws Error naming `path`.
void sync_and_forget(int fd, const std::filesystem::path& path);

}  // namespace dsctl::gguf
