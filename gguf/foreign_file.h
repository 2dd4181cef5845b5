// Says what a file is that is no GGUF: downloads that went wrong have few and familiar shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace dsctl::gguf {

/// What `bytes` (a whole file without the GGUF magic) seem to be and what to do about it, as the
/// rest of a message that starts with the file's name: "is a Git-LFS pointer, not the model: ...".
std::string describe_foreign_file(std::span<const std::byte> bytes);

/// What a Git-LFS pointer file stands for.
struct LfsPointer {
  std::string sha256;  // 64 lower-case hexadecimal digits
  int64_t size_bytes = 0;
};

/// Reads `text`, a whole file, as a Git-LFS pointer; nothing when it is none.
std::optional<LfsPointer> parse_lfs_pointer(std::string_view text);

}  // namespace dsctl::gguf
