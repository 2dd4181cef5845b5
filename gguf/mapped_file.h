// A whole file mapped read-only, so that weights are used where they lie and never copied.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace dsctl::gguf {

/// Owns a read-only mapping of one file. Movable, not copyable.
class MappedFile {
 public:
  /// Maps `path`; throws Error naming it when it can't be opened, is no regular file or can't be
  /// mapped. An empty file gives an empty span.
  explicit MappedFile(const std::filesystem::path& path);
  /// A file of which only the first bytes are known, such as one on another machine: its size is
  /// `size_bytes`, what follows `prefix` reads as zeros and takes no memory. `path` is for
  /// messages.
  static MappedFile of_prefix(std::filesystem::path path, std::span<const std::byte> prefix,
                              int64_t size_bytes);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  MappedFile() = default;
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

}  // namespace dsctl::gguf
