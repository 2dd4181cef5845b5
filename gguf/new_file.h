// NewFile: a file that appears under its name only when it is whole and on disk. Internal to gguf/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::gguf {

/// A file under a temporary name beside `path` (`<name>.tmp-<pid>`) that disappears unless
/// `publish` gives it its own. The temporary is locked while its writer lives: what a killed writer
/// of the same path left behind is removed by the next one.
class NewFile {
 public:
  explicit NewFile(std::filesystem::path path);
  ~NewFile();
  NewFile(const NewFile&) = delete;
  NewFile& operator=(const NewFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  int fd() const { return fd_; }  // open for reading and writing

  /// Makes the file `size_bytes` long and reserves its blocks where the file system can, so that
  /// a full disk is known before the work. Throws Error with the bytes needed and free.
  void reserve(int64_t size_bytes);

  /// Writes `data` at `offset_bytes`. Thread-safe for ranges that do not overlap.
  void write_at(int64_t offset_bytes, std::span<const std::byte> data);
  void write_at(int64_t offset_bytes, std::string_view text);

  /// Has all that was written on disk.
  void sync();

  /// Syncs the file and renames it to `path`.
  void publish();

 private:
  [[noreturn]] void fail(const std::string& what) const;

  std::filesystem::path path_;
  std::filesystem::path temp_path_;
  int fd_ = -1;
  bool is_published_ = false;
};

enum class IfExists { kFail, kReplace };

/// Throws Error when `out` can't become a new file: it is there already (unless it may be
/// replaced), is no regular file, is one of `inputs`, or its directory is missing. All that write
/// files for a person ask this first; a file that is replaced stays until the new one is whole.
void check_out(const std::filesystem::path& out, const std::vector<std::filesystem::path>& inputs,
               IfExists if_exists);

/// Makes names created or removed in `directory` ("" is the current one) last over a power loss,
/// where we may open it.
void sync_directory(const std::filesystem::path& directory);

/// Bytes that are free for us on the file system of `directory` ("" is the current one), or
/// INT64_MAX where it can't be asked.
int64_t free_bytes(const std::filesystem::path& directory);

}  // namespace dsctl::gguf
