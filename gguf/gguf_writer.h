// GgufWriter: collects metadata and tensors and writes them as one GGUF file or as the shards of a
// split, each complete and on disk before it gets its name.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <initializer_list>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/dtype.h"
#include "gguf/gguf_file.h"

namespace dsctl::gguf {

/// The ValueType of a C++ scalar in metadata.
template <typename T>
constexpr ValueType value_type_of() {
  if constexpr (std::same_as<T, bool>) return ValueType::BOOL;
  if constexpr (std::same_as<T, uint8_t>) return ValueType::U8;
  if constexpr (std::same_as<T, int8_t>) return ValueType::I8;
  if constexpr (std::same_as<T, uint16_t>) return ValueType::U16;
  if constexpr (std::same_as<T, int16_t>) return ValueType::I16;
  if constexpr (std::same_as<T, uint32_t>) return ValueType::U32;
  if constexpr (std::same_as<T, int32_t>) return ValueType::I32;
  if constexpr (std::same_as<T, uint64_t>) return ValueType::U64;
  if constexpr (std::same_as<T, int64_t>) return ValueType::I64;
  if constexpr (std::same_as<T, float>) return ValueType::F32;
  if constexpr (std::same_as<T, double>) return ValueType::F64;
}

struct GgufWriterOptions {
  uint32_t version = 3;
  uint32_t alignment = 32;  // bytes, a power of two; another value than 32 is written as metadata
};

/// How a model is cut into shards.
struct SplitOptions {
  int n_shards = 0;             // exactly so many, with about the same number of tensors each; or
  int n_tensors_per_shard = 0;  // at most so many tensors each
  enum class FirstShard { WithTensors, MetadataOnly } first_shard = FirstShard::WithTensors;
};

/// Where everything of a file lies before it is written.
struct GgufLayout {
  struct Tensor {
    std::string name;
    int64_t offset_bytes = 0;  // from the start of the file
    int64_t size_bytes = 0;
  };
  std::string header;  // all before the first tensor's data, padding included
  std::vector<Tensor> tensors;
  int64_t size_bytes = 0;  // of the whole file
};

/// A model on its way to disk. Keys and names are checked when they are added.
class GgufWriter {
 public:
  explicit GgufWriter(GgufWriterOptions options = {});

  /// Adds one metadata value; the C++ type chooses the file type. Throws Error when `key` is empty
  /// or was added before.
  template <typename T>
  requires std::is_arithmetic_v<T>
  void add(std::string_view key, T value) {
    begin(key, value_type_of<T>());
    append(&value, sizeof(value));
  }
  void add(std::string_view key, std::string_view value);
  void add(std::string_view key, const char* value) { add(key, std::string_view(value)); }

  /// Adds an array of numbers. Bools are given to add_bools, strings to add_strings.
  template <typename T>
  requires(std::is_arithmetic_v<T> &&
           !std::same_as<T, bool>) void add_array(std::string_view key, std::span<const T> values) {
    begin_array(key, value_type_of<T>(), values.size());
    append(values.data(), values.size_bytes());
  }
  template <typename T>
  void add_array(std::string_view key, const std::vector<T>& values) {
    add_array(key, std::span<const T>(values));
  }
  void add_bools(std::string_view key, const std::vector<bool>& values);
  void add_strings(std::string_view key, std::span<const std::string> values);

  /// Adds a value as it was read from another file, with its type.
  void add_value(std::string_view key, const Value& value);

  /// Adds a tensor of `dims` (dims[0] is the row length) with its data, which is kept. Throws Error
  /// when the name is taken, the dims don't suit the type or the data has another size.
  void add_tensor(std::string_view name, DType dtype, std::span<const int64_t> dims,
                  std::vector<std::byte> data);
  void add_tensor(std::string_view name, DType dtype, std::initializer_list<int64_t> dims,
                  std::vector<std::byte> data) {
    add_tensor(name, dtype, std::span(dims.begin(), dims.size()), std::move(data));
  }
  /// The same, in f32.
  void add_tensor(std::string_view name, std::initializer_list<int64_t> dims,
                  std::span<const float> values);
  /// The same, but `data` is not copied: it must live until the last write.
  void add_tensor_view(std::string_view name, DType dtype, std::span<const int64_t> dims,
                       std::span<const std::byte> data);

  /// Declares a tensor without data, for GgufStreamWriter, which gets the data piece by piece.
  void declare_tensor(std::string_view name, DType dtype, std::span<const int64_t> dims);
  void declare_tensor(std::string_view name, DType dtype, std::initializer_list<int64_t> dims) {
    declare_tensor(name, dtype, std::span(dims.begin(), dims.size()));
  }

  size_t n_tensors() const { return tensors_.size(); }
  /// The data that tensor `idx` was added with; nothing when it was only declared.
  std::optional<std::span<const std::byte>> data(size_t idx) const;

  /// The header and the places of the tensors of the file that `write` would make.
  GgufLayout layout() const;

  /// Writes one file: to a temporary name beside `path`, synced, then renamed. Throws Error, also
  /// when a tensor was only declared.
  void write(const std::filesystem::path& path) const;

  /// Writes `<prefix>-NNNNN-of-NNNNN.gguf` into `directory` and returns their paths in order. Only
  /// the first shard has the metadata. Throws Error.
  std::vector<std::filesystem::path> write_split(const std::filesystem::path& directory,
                                                 std::string_view prefix,
                                                 const SplitOptions& options) const;

 private:
  struct Tensor {
    std::string name;
    DType dtype = DType::F32;
    std::vector<int64_t> dims;
    int64_t size_bytes = 0;
    bool is_declared = false;  // without data
    std::vector<std::byte> owned;
    std::span<const std::byte> data;
  };

  void begin(std::string_view key, ValueType type);
  void begin_array(std::string_view key, ValueType element_type, uint64_t n_elems);
  void append(const void* data, size_t size_bytes);
  void append_string(std::string_view text);
  void add_array_value(std::string_view key, const ArrayValue& array);
  Tensor& new_tensor(std::string_view name, DType dtype, std::span<const int64_t> dims);
  Tensor& new_tensor(std::string_view name, DType dtype, std::span<const int64_t> dims,
                     size_t size_bytes);
  GgufLayout layout(const std::string& metadata, uint64_t n_metadata,
                    std::span<const Tensor> tensors) const;
  void write_file(const std::filesystem::path& path, const std::string& metadata,
                  uint64_t n_metadata, std::span<const Tensor> tensors) const;

  GgufWriterOptions options_;
  std::string metadata_;  // the key-value section as it will lie in the file
  uint64_t n_metadata_ = 0;
  std::vector<Tensor> tensors_;
  std::set<std::string, std::less<>> keys_;
  std::set<std::string, std::less<>> names_;
};

}  // namespace dsctl::gguf
