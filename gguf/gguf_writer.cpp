#include "gguf/gguf_writer.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "gguf/error.h"
#include "gguf/new_file.h"
#include "gguf/printable.h"
#include "gguf/split.h"

namespace dsctl::gguf {
namespace {

template <typename T>
void append_scalar(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_text(std::string& out, std::string_view text) {
  append_scalar(out, uint64_t{text.size()});
  out += text;
}

template <typename T>
void append_entry(std::string& out, std::string_view key, T value) {
  append_text(out, key);
  append_scalar(out, static_cast<uint32_t>(value_type_of<T>()));
  append_scalar(out, value);
}

uint64_t round_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

/// Bytes of a tensor, or an Error when its dims are broken.
int64_t tensor_size_bytes(std::string_view name, DType dtype, std::span<const int64_t> dims) {
  const DTypeInfo& info = dtype_info(dtype);
  const bool positive = std::all_of(dims.begin(), dims.end(), [](int64_t dim) { return dim > 0; });
  if (dims.empty() || dims.size() > 4 || !positive || dims[0] % info.block_elems != 0) {
    std::string shape;
    for (const int64_t dim : dims)
      shape += (shape.empty() ? "" : ", ") + std::to_string(dim);
    throw Error(std::string(name) + ": shape [" + shape + "], expected 1 to 4 positive numbers, " +
                "the first a multiple of " + std::to_string(info.block_elems) + " for " +
                std::string(info.name));
  }
  int64_t size_bytes = row_size_bytes(dtype, dims[0]);
  for (const int64_t dim : dims.subspan(1)) {
    if (__builtin_mul_overflow(size_bytes, dim, &size_bytes)) {
      throw Error(std::string(name) + ": its dimensions multiply to more than 2^63 bytes");
    }
  }
  return size_bytes;
}

/// The bytes of `values`, narrowed to the width they have in the file.
template <typename T, typename Wide>
std::vector<T> narrow(const std::vector<Wide>& values) {
  return std::vector<T>(values.begin(), values.end());
}

}  // namespace

GgufWriter::GgufWriter(GgufWriterOptions options) : options_(options) {
  if (options_.version != 2 && options_.version != 3) {
    throw Error("can't write GGUF version " + std::to_string(options_.version) +
                ", expected 2 or 3");
  }
  if (!std::has_single_bit(options_.alignment)) {
    throw Error("alignment is " + std::to_string(options_.alignment) + ", expected a power of two");
  }
  if (options_.alignment != 32) add("general.alignment", options_.alignment);
}

void GgufWriter::append(const void* data, size_t size_bytes) {
  metadata_.append(static_cast<const char*>(data), size_bytes);
}

void GgufWriter::append_string(std::string_view text) {
  append_text(metadata_, text);
}

void GgufWriter::begin(std::string_view key, ValueType type) {
  if (key.empty() || key.size() > 65535) throw Error("a metadata key is empty or too long");
  if (!keys_.emplace(key).second) {
    throw Error("metadata key " + printable(key) + " was added twice");
  }
  ++n_metadata_;
  append_string(key);
  append_scalar(metadata_, static_cast<uint32_t>(type));
}

void GgufWriter::begin_array(std::string_view key, ValueType element_type, uint64_t n_elems) {
  begin(key, ValueType::ARRAY);
  append_scalar(metadata_, static_cast<uint32_t>(element_type));
  append_scalar(metadata_, n_elems);
}

void GgufWriter::add(std::string_view key, std::string_view value) {
  begin(key, ValueType::STRING);
  append_string(value);
}

void GgufWriter::add_bools(std::string_view key, const std::vector<bool>& values) {
  begin_array(key, ValueType::BOOL, values.size());
  for (const bool value : values)
    append_scalar(metadata_, static_cast<uint8_t>(value ? 1 : 0));
}

void GgufWriter::add_strings(std::string_view key, std::span<const std::string> values) {
  begin_array(key, ValueType::STRING, values.size());
  for (const std::string& value : values)
    append_string(value);
}

void GgufWriter::add_value(std::string_view key, const Value& value) {
  const auto& data = value.data;
  switch (value.type) {
    case ValueType::U8:
      return add(key, static_cast<uint8_t>(std::get<uint64_t>(data)));
    case ValueType::U16:
      return add(key, static_cast<uint16_t>(std::get<uint64_t>(data)));
    case ValueType::U32:
      return add(key, static_cast<uint32_t>(std::get<uint64_t>(data)));
    case ValueType::U64:
      return add(key, std::get<uint64_t>(data));
    case ValueType::I8:
      return add(key, static_cast<int8_t>(std::get<int64_t>(data)));
    case ValueType::I16:
      return add(key, static_cast<int16_t>(std::get<int64_t>(data)));
    case ValueType::I32:
      return add(key, static_cast<int32_t>(std::get<int64_t>(data)));
    case ValueType::I64:
      return add(key, std::get<int64_t>(data));
    case ValueType::F32:
      return add(key, static_cast<float>(std::get<double>(data)));
    case ValueType::F64:
      return add(key, std::get<double>(data));
    case ValueType::BOOL:
      return add(key, std::get<bool>(data));
    case ValueType::STRING:
      return add(key, std::get<std::string_view>(data));
    case ValueType::ARRAY:
      return add_array_value(key, std::get<ArrayValue>(data));
  }
}

void GgufWriter::add_array_value(std::string_view key, const ArrayValue& array) {
  const auto signed_elems = [&]() -> const auto& {
    return std::get<std::vector<int64_t>>(array.elements);
  };
  const auto unsigned_elems = [&]() -> const auto& {
    return std::get<std::vector<uint64_t>>(array.elements);
  };
  const auto real_elems = [&]() -> const auto& {
    return std::get<std::vector<double>>(array.elements);
  };
  switch (array.element_type) {
    case ValueType::U8:
      return add_array(key, narrow<uint8_t>(unsigned_elems()));
    case ValueType::U16:
      return add_array(key, narrow<uint16_t>(unsigned_elems()));
    case ValueType::U32:
      return add_array(key, narrow<uint32_t>(unsigned_elems()));
    case ValueType::U64:
      return add_array(key, unsigned_elems());
    case ValueType::I8:
      return add_array(key, narrow<int8_t>(signed_elems()));
    case ValueType::I16:
      return add_array(key, narrow<int16_t>(signed_elems()));
    case ValueType::I32:
      return add_array(key, narrow<int32_t>(signed_elems()));
    case ValueType::I64:
      return add_array(key, signed_elems());
    case ValueType::F32:
      return add_array(key, narrow<float>(real_elems()));
    case ValueType::F64:
      return add_array(key, real_elems());
    case ValueType::BOOL: {
      std::vector<bool> flags;
      for (const int64_t value : signed_elems())
        flags.push_back(value != 0);
      return add_bools(key, flags);
    }
    case ValueType::STRING: {
      const auto& texts = std::get<std::vector<std::string_view>>(array.elements);
      begin_array(key, ValueType::STRING, texts.size());
      for (const std::string_view text : texts)
        append_string(text);
      return;
    }
    case ValueType::ARRAY:
      throw Error(std::string(key) + ": arrays of arrays can't be written");
  }
}

GgufWriter::Tensor& GgufWriter::new_tensor(std::string_view name, DType dtype,
                                           std::span<const int64_t> dims) {
  if (name.empty() || name.size() > 63) {
    throw Error("tensor name '" + printable(name) + "' has " + std::to_string(name.size()) +
                " bytes, expected 1 to 63");
  }
  const int64_t size_bytes = tensor_size_bytes(name, dtype, dims);
  if (!names_.emplace(name).second) {
    throw Error("tensor " + printable(name) + " was added twice");
  }
  Tensor& tensor = tensors_.emplace_back();
  tensor.name = name;
  tensor.dtype = dtype;
  tensor.dims.assign(dims.begin(), dims.end());
  tensor.size_bytes = size_bytes;
  return tensor;
}

GgufWriter::Tensor& GgufWriter::new_tensor(std::string_view name, DType dtype,
                                           std::span<const int64_t> dims, size_t size_bytes) {
  const int64_t expected = tensor_size_bytes(name, dtype, dims);
  if (size_bytes != static_cast<size_t>(expected)) {
    throw Error(std::string(name) + ": has " + std::to_string(size_bytes) +
                " bytes of data, expected " + std::to_string(expected));
  }
  return new_tensor(name, dtype, dims);
}

void GgufWriter::declare_tensor(std::string_view name, DType dtype, std::span<const int64_t> dims) {
  new_tensor(name, dtype, dims).is_declared = true;
}

std::optional<std::span<const std::byte>> GgufWriter::data(size_t idx) const {
  const Tensor& tensor = tensors_[idx];
  if (tensor.is_declared) return std::nullopt;
  return tensor.data;
}

void GgufWriter::add_tensor(std::string_view name, DType dtype, std::span<const int64_t> dims,
                            std::vector<std::byte> data) {
  Tensor& tensor = new_tensor(name, dtype, dims, data.size());
  tensor.owned = std::move(data);
  tensor.data = tensor.owned;
}

void GgufWriter::add_tensor(std::string_view name, std::initializer_list<int64_t> dims,
                            std::span<const float> values) {
  const std::span<const std::byte> bytes = std::as_bytes(values);
  add_tensor(name, DType::F32, dims, std::vector<std::byte>(bytes.begin(), bytes.end()));
}

void GgufWriter::add_tensor_view(std::string_view name, DType dtype, std::span<const int64_t> dims,
                                 std::span<const std::byte> data) {
  new_tensor(name, dtype, dims, data.size()).data = data;
}

GgufLayout GgufWriter::layout(const std::string& metadata, uint64_t n_metadata,
                              std::span<const Tensor> tensors) const {
  GgufLayout layout;
  std::string& header = layout.header;
  header = "GGUF";
  append_scalar(header, options_.version);
  append_scalar(header, uint64_t{tensors.size()});
  append_scalar(header, n_metadata);
  header += metadata;
  int64_t offset = 0;
  for (const Tensor& tensor : tensors) {
    append_text(header, tensor.name);
    append_scalar(header, static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims)
      append_scalar(header, dim);
    append_scalar(header, static_cast<uint32_t>(tensor.dtype));
    append_scalar(header, offset);
    layout.tensors.push_back({tensor.name, offset, tensor.size_bytes});
    const int64_t padding = (-tensor.size_bytes) & (int64_t{options_.alignment} - 1);
    if (__builtin_add_overflow(offset, tensor.size_bytes, &offset) ||
        __builtin_add_overflow(offset, padding, &offset)) {
      throw Error("the tensors take more than 2^63 bytes together");
    }
  }
  header.resize(round_up(header.size(), options_.alignment));
  const auto data_start = static_cast<int64_t>(header.size());
  for (GgufLayout::Tensor& tensor : layout.tensors)
    tensor.offset_bytes += data_start;
  if (__builtin_add_overflow(data_start, offset, &layout.size_bytes)) {
    throw Error("the tensors take more than 2^63 bytes together");
  }
  return layout;
}

GgufLayout GgufWriter::layout() const {
  return layout(metadata_, n_metadata_, tensors_);
}

void GgufWriter::write_file(const std::filesystem::path& path, const std::string& metadata,
                            uint64_t n_metadata, std::span<const Tensor> tensors) const {
  for (const Tensor& tensor : tensors) {
    if (!tensor.is_declared) continue;
    throw Error(tensor.name + ": was declared without data: GgufStreamWriter writes such a file");
  }
  const GgufLayout places = layout(metadata, n_metadata, tensors);
  NewFile file(path);
  file.reserve(places.size_bytes);
  file.write_at(0, places.header);
  for (size_t i = 0; i < tensors.size(); ++i)
    file.write_at(places.tensors[i].offset_bytes, tensors[i].data);
  file.publish();
}

void GgufWriter::write(const std::filesystem::path& path) const {
  write_file(path, metadata_, n_metadata_, tensors_);
}

std::vector<std::filesystem::path> GgufWriter::write_split(const std::filesystem::path& directory,
                                                           std::string_view prefix,
                                                           const SplitOptions& options) const {
  for (const std::string_view key : {"split.no", "split.count", "split.tensors.count"}) {
    if (keys_.contains(key)) throw Error(std::string(key) + ": is written by write_split itself");
  }
  const bool metadata_only = options.first_shard == SplitOptions::FirstShard::MetadataOnly;
  const size_t n_first = metadata_only ? 1 : 0;
  const size_t n_tensors = tensors_.size();
  size_t n_with_tensors = 0;
  if (options.n_shards > 0) {
    n_with_tensors = static_cast<size_t>(options.n_shards) - n_first;
  } else if (options.n_tensors_per_shard > 0) {
    const auto per_shard = static_cast<size_t>(options.n_tensors_per_shard);
    n_with_tensors = std::max<size_t>((n_tensors + per_shard - 1) / per_shard, 1);
  }
  const size_t n_shards = n_first + n_with_tensors;
  if (n_shards == 0 || n_shards > 65535 || (n_with_tensors == 0 && n_tensors > 0)) {
    throw Error("can't split " + std::to_string(n_tensors) + " tensors into " +
                std::to_string(n_shards) + " shards");
  }
  std::vector<std::filesystem::path> paths;
  size_t begin = 0;
  for (size_t i = 0; i < n_shards; ++i) {
    const size_t part = i + 1 - n_first;  // how many shards with tensors there are up to this one
    const size_t end =
        i < n_first ? 0
        : options.n_shards > 0
            ? n_tensors * part / n_with_tensors
            : std::min(n_tensors, part * static_cast<size_t>(options.n_tensors_per_shard));
    std::string metadata = i == 0 ? metadata_ : std::string();
    uint64_t n_metadata = i == 0 ? n_metadata_ : 0;
    if (i > 0 && options_.alignment != 32) {
      append_entry(metadata, "general.alignment", options_.alignment);
      ++n_metadata;
    }
    append_entry(metadata, "split.no", static_cast<uint16_t>(i));
    append_entry(metadata, "split.count", static_cast<uint16_t>(n_shards));
    append_entry(metadata, "split.tensors.count", static_cast<int32_t>(n_tensors));
    const ShardName name{std::string(prefix), static_cast<int>(i), static_cast<int>(n_shards)};
    paths.push_back(directory / shard_file_name(name));
    write_file(paths.back(), metadata, n_metadata + 3,
               std::span(tensors_).subspan(begin, end - begin));
    begin = end;
  }
  return paths;
}

}  // namespace dsctl::gguf
