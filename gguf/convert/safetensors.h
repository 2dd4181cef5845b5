// Safetensors: the files a checkpoint of the Hub is made of. Reads headers, checks every field of
// them against the file's length, and hands out views of the mapped data.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/mapped_file.h"

namespace dsctl::gguf::convert {

/// Element types of the format, as far as weights use them.
enum class ScalarType {
  kBool,
  kU8,
  kI8,
  kF8E4M3,
  kF8E5M2,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kI64,
  kU64,
  kF64
};

/// "BF16"; the name in a file's header.
std::string_view scalar_name(ScalarType type);
int scalar_bytes(ScalarType type);

/// One tensor of a checkpoint. Row-major: the last dimension of `shape` is the fastest.
struct SafeTensor {
  std::string name;
  ScalarType type = ScalarType::kF32;
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  // of the mapped file

  int64_t n_elems() const;
};

/// Reads the header of a file whose whole content is `file`; tensors come sorted by name. `label`
/// is the file in messages. Throws Error naming the tensor and the field: a header that is no JSON
/// object, an unknown type, offsets that leave the file, overlap, leave a hole or don't suit the
/// shape, a name given twice, a file that is cut short.
std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> file, std::string_view label);

/// All files of a checkpoint, mapped. Thread-safe after construction.
class Checkpoint {
 public:
  /// Opens the files that model.safetensors.index.json names, or else model*.safetensors. Throws
  /// Error naming a file that is missing, broken or a Git-LFS pointer, and a tensor that the index
  /// and the files don't agree on.
  static Checkpoint open(const std::filesystem::path& dir);

  /// By file (in order of name), then by name.
  std::span<const SafeTensor> tensors() const { return tensors_; }
  const SafeTensor* find(std::string_view name) const;
  int64_t size_bytes() const;  // of all files

 private:
  std::vector<MappedFile> files_;
  std::vector<SafeTensor> tensors_;
  std::map<std::string, size_t, std::less<>> by_name_;
};

}  // namespace dsctl::gguf::convert
