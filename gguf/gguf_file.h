// GgufFile: one GGUF file, or all shards of a split model seen as one. After construction every
// offset, size, string and type has been validated, so users of this class need no checks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "gguf/dtype.h"
#include "gguf/mapped_file.h"

namespace dsctl::gguf {

/// Value types of metadata, with the ids of the file.
enum class ValueType : uint32_t {
  U8 = 0,
  I8 = 1,
  U16 = 2,
  I16 = 3,
  U32 = 4,
  I32 = 5,
  F32 = 6,
  BOOL = 7,
  STRING = 8,
  ARRAY = 9,
  U64 = 10,
  I64 = 11,
  F64 = 12,
};

/// An array of metadata. Integers of every width are widened; strings are views into the mapping.
struct ArrayValue {
  ValueType element_type = ValueType::U8;
  std::variant<std::vector<int64_t>, std::vector<uint64_t>, std::vector<double>,
               std::vector<std::string_view>>
      elements;  // bool and signed -> int64, unsigned -> uint64, float -> double, string -> view
  size_t size() const;
};

/// One metadata value. Integers are widened to 64 bits and keep their file type beside them.
struct Value {
  ValueType type = ValueType::U8;
  std::variant<int64_t, uint64_t, double, bool, std::string_view, ArrayValue> data;
};

struct KeyValue {
  std::string_view key;
  Value value;
};

/// One tensor. dims[0] is the row length (the fastest index); missing dims are 1.
struct TensorInfo {
  std::string_view name;
  DType dtype = DType::F32;
  int n_dims = 1;
  std::array<int64_t, 4> dims{1, 1, 1, 1};
  int shard_idx = 0;
  int64_t offset_bytes = 0;  // from the start of its shard's file
  int64_t size_bytes = 0;
  const std::byte* data = nullptr;  // inside the mapping of its shard

  int64_t n_elems() const { return dims[0] * dims[1] * dims[2] * dims[3]; }
  int64_t n_rows() const { return dims[1] * dims[2] * dims[3]; }
};

/// A GGUF file of which only the beginning is here.
struct PartialFile {
  std::filesystem::path path;     // for messages
  std::vector<std::byte> prefix;  // the whole header (header_bytes_needed), or more
  int64_t size_bytes = 0;         // of the whole file
};

/// A model in GGUF form, mapped. Thread-safe after construction.
class GgufFile {
 public:
  /// Opens `path`. Any shard of a split opens them all: the others are looked for beside it, under
  /// the standard names. Throws Error naming the shard that is missing, foreign, out of order or
  /// truncated, a Git-LFS pointer, an HTML page, or the field that is broken.
  static GgufFile open(const std::filesystem::path& path);

  /// Opens the shards of a split in order, whatever their names (the registry stores them by
  /// digest). One path is an ordinary file.
  static GgufFile open_shards(const std::vector<std::filesystem::path>& paths);

  /// Opens a model by its headers alone, shards in order: all is known but the tensors' data, which
  /// reads as zeros.
  static GgufFile open_headers(const std::vector<PartialFile>& files);

  uint32_t version() const { return version_; }
  /// Metadata of the first shard, in file order.
  std::span<const KeyValue> metadata() const { return metadata_; }
  /// Tensors of all shards, in order of shard and file.
  std::span<const TensorInfo> tensors() const { return tensors_; }
  const std::vector<MappedFile>& shards() const { return shards_; }
  int64_t size_bytes() const;  // of all shards

  const Value* find(std::string_view key) const;
  const TensorInfo* find_tensor(std::string_view name) const;

  // Typed access. `get_x` throws Error naming the key when it is missing or has another type;
  // `find_x` gives nothing when it is missing and throws when it has another type. Integers of any
  // width and sign are accepted where the value fits.
  std::string_view get_string(std::string_view key) const;
  uint64_t get_uint(std::string_view key) const;
  double get_float(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<int64_t> find_int(std::string_view key) const;
  std::optional<uint64_t> find_uint(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  const ArrayValue* find_array(std::string_view key) const;

  /// general.architecture.
  std::string_view architecture() const;

 private:
  struct Index;
  struct Shard;  // one file, mapped and parsed
  GgufFile();
  static GgufFile join(std::vector<Shard> shards);

  uint32_t version_ = 0;
  std::vector<MappedFile> shards_;
  std::vector<KeyValue> metadata_;
  std::vector<TensorInfo> tensors_;
  std::unique_ptr<Index> index_;

 public:
  ~GgufFile();
  GgufFile(GgufFile&&) noexcept;
  GgufFile& operator=(GgufFile&&) noexcept;
};

}  // namespace dsctl::gguf
