// Says what a file is that is no GGUF: downloads that went wrong have few and familiar shapes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace dsctl::gguf {

/// What `bytes` (a whole file without the GGUF magic) seem to be and what to do about it, as the
/// rest of a message that starts with the file's name: "is a Git-LFS pointer, not the model: ...".
std::string describe_foreign_file(std::span<const std::byte> bytes);

}  // namespace dsctl::gguf
