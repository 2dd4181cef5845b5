#include "gguf/shard_parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>

#include "gguf/error.h"
#include "gguf/foreign_file.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

// Values are read as they lie in memory. A big-endian port would swap here.
static_assert(std::endian::native == std::endian::little, "GGUF is read as little-endian");

// No honest file comes near these; they bound what a damaged one can make us allocate.
constexpr uint64_t kMaxEntries = 1 << 20;
constexpr uint64_t kMaxArrayElems = 1 << 26;
constexpr uint64_t kMaxKeyBytes = 65535;
constexpr uint64_t kMaxNameBytes = 63;                 // ggml keeps names in 64 bytes with a NUL
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;  // key length, key, type, value
constexpr uint64_t kMinTensorBytes = 8 + 1 + 4 + 8 + 4 + 8;
constexpr int64_t kDefaultAlignment = 32;

/// A prefix is too short, the file may be sound.
struct NeedsMore {
  uint64_t n_bytes = 0;  // from the file's start, at least
};

/// Reads fields one after the other and refuses to leave the file.
class Parser {
 public:
  Parser(const std::filesystem::path& path, std::span<const std::byte> bytes, uint64_t file_size)
      : path_(path), bytes_(bytes), file_size_(file_size) {}

  /// Throws Error, and NeedsMore where `bytes` are not the whole file.
  ParsedShard parse();
  uint64_t position() const { return position_; }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(path_.string() + ": " + where_ + what);
  }
  [[noreturn]] void fail_truncated(uint64_t needed, std::string_view field) const {
    if (needed <= file_size_ - position_) throw NeedsMore{position_ + needed};
    fail("the file ends at byte " + std::to_string(file_size_) + ", but " + std::string(field) +
         " at byte " + std::to_string(position_) + " needs " + std::to_string(needed) +
         " bytes: it is truncated or damaged; fetch it again");
  }

  uint64_t remaining() const { return bytes_.size() - position_; }

  template <typename T>
  T read(std::string_view field) {
    if (remaining() < sizeof(T)) fail_truncated(sizeof(T), field);
    T value;
    std::memcpy(&value, bytes_.data() + position_, sizeof(T));
    position_ += sizeof(T);
    return value;
  }

  bool read_bool(std::string_view field) {
    const auto value = read<uint8_t>(field);
    if (value > 1) {
      fail(std::string(field) + " is a bool of value " + std::to_string(value) +
           ", expected 0 or 1");
    }
    return value == 1;
  }

  std::string_view read_string(std::string_view field) {
    const auto size = read<uint64_t>(field);
    if (size > remaining()) fail_truncated(size, field);
    const auto* start = reinterpret_cast<const char*>(bytes_.data() + position_);
    position_ += size;
    return {start, static_cast<size_t>(size)};
  }

  std::string_view read_name(std::string_view field, uint64_t max_bytes);
  uint64_t read_count(std::string_view field, uint64_t min_entry_bytes);
  void read_header();
  void check_version(uint32_t version) const;
  KeyValue read_key_value();
  Value read_value(ValueType type);
  ArrayValue read_array();
  template <typename T, typename Wide>
  std::vector<Wide> read_elements(uint64_t n_elems);
  std::vector<std::string_view> read_strings(uint64_t n_elems);
  void read_alignment(const KeyValue& entry);
  TensorInfo read_tensor();
  void read_dims(TensorInfo& tensor);
  void set_size(TensorInfo& tensor) const;
  void place_tensors(std::vector<TensorInfo>& tensors);

  const std::filesystem::path& path_;
  std::span<const std::byte> bytes_;  // the file, or its beginning
  uint64_t file_size_ = 0;
  uint64_t position_ = 0;
  std::string where_;  // "metadata 5 of 30 (general.name): ", the prefix of messages
  uint32_t version_ = 0;
  uint64_t n_tensors_ = 0;
  uint64_t n_metadata_ = 0;
  int64_t alignment_ = kDefaultAlignment;
};

std::string_view Parser::read_name(std::string_view field, uint64_t max_bytes) {
  const std::string_view name = read_string(field);
  if (name.empty()) fail("the " + std::string(field) + " is empty");
  if (name.size() > max_bytes) {
    fail("the " + std::string(field) + " has " + std::to_string(name.size()) + " bytes, at most " +
         std::to_string(max_bytes) + " are allowed: " + printable(name));
  }
  const bool has_control = std::any_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) < 0x20 || c == 0x7f;
  });
  if (has_control) fail("the " + std::string(field) + " has control codes: " + printable(name));
  return name;
}

uint64_t Parser::read_count(std::string_view field, uint64_t min_entry_bytes) {
  const auto count = read<uint64_t>(field);
  // The counts stand before what they count: an entry that can't fit means a broken header.
  if (count > (file_size_ - position_) / min_entry_bytes) {
    fail("the " + std::string(field) + " is " + std::to_string(count) +
         ", more than fit in the file of " + std::to_string(file_size_) +
         " bytes: it is truncated or damaged; fetch it again");
  }
  if (count > kMaxEntries) {
    fail("the " + std::string(field) + " is " + std::to_string(count) + ", at most " +
         std::to_string(kMaxEntries) + " are allowed");
  }
  return count;
}

void Parser::check_version(uint32_t version) const {
  if (version == 2 || version == 3) return;
  if (version != 0 && (version & 0xffff) == 0) {
    fail(
        "is a big-endian GGUF file, which this program does not read: get or convert to the "
        "little-endian one");
  }
  if (version == 1) {
    fail(
        "is a GGUF file of version 1, which nothing writes any more: convert the model again to "
        "get version 3");
  }
  fail("has GGUF version " + std::to_string(version) + ", expected 2 or 3" +
       (version > 3 ? ": it is damaged or newer than this program" : ": it is damaged"));
}

void Parser::read_header() {
  constexpr std::string_view kMagic = "GGUF";
  const std::string_view head(reinterpret_cast<const char*>(bytes_.data()),
                              std::min<size_t>(bytes_.size(), kMagic.size()));
  if (head.empty() && file_size_ > 0) throw NeedsMore{kMagic.size()};
  if (head.empty() || !kMagic.starts_with(head)) fail(describe_foreign_file(bytes_));
  if (head.size() < kMagic.size()) fail_truncated(kMagic.size(), "the magic");
  position_ = kMagic.size();
  version_ = read<uint32_t>("the version");
  check_version(version_);
  n_tensors_ = read_count("tensor count", kMinTensorBytes);
  n_metadata_ = read_count("metadata count", kMinMetadataBytes);
}

template <typename T, typename Wide>
std::vector<Wide> Parser::read_elements(uint64_t n_elems) {
  if (n_elems > remaining() / sizeof(T)) fail_truncated(n_elems * sizeof(T), "an array");
  std::vector<Wide> elements(n_elems);
  for (Wide& element : elements)
    element = static_cast<Wide>(read<T>("an array"));
  return elements;
}

std::vector<std::string_view> Parser::read_strings(uint64_t n_elems) {
  if (n_elems > remaining() / 8) fail_truncated(n_elems * 8, "an array of strings");
  std::vector<std::string_view> elements(n_elems);
  for (std::string_view& element : elements)
    element = read_string("a string of an array");
  return elements;
}

ArrayValue Parser::read_array() {
  const auto type_id = read<uint32_t>("the element type of an array");
  const auto type = static_cast<ValueType>(type_id);
  const auto n_elems = read<uint64_t>("the length of an array");
  if (n_elems > kMaxArrayElems) {
    fail("is an array of " + std::to_string(n_elems) + " elements, at most " +
         std::to_string(kMaxArrayElems) + " are allowed: the file is damaged");
  }
  ArrayValue array{type, {}};
  switch (type) {
    case ValueType::U8:
      array.elements = read_elements<uint8_t, uint64_t>(n_elems);
      return array;
    case ValueType::I8:
      array.elements = read_elements<int8_t, int64_t>(n_elems);
      return array;
    case ValueType::U16:
      array.elements = read_elements<uint16_t, uint64_t>(n_elems);
      return array;
    case ValueType::I16:
      array.elements = read_elements<int16_t, int64_t>(n_elems);
      return array;
    case ValueType::U32:
      array.elements = read_elements<uint32_t, uint64_t>(n_elems);
      return array;
    case ValueType::I32:
      array.elements = read_elements<int32_t, int64_t>(n_elems);
      return array;
    case ValueType::U64:
      array.elements = read_elements<uint64_t, uint64_t>(n_elems);
      return array;
    case ValueType::I64:
      array.elements = read_elements<int64_t, int64_t>(n_elems);
      return array;
    case ValueType::F32:
      array.elements = read_elements<float, double>(n_elems);
      return array;
    case ValueType::F64:
      array.elements = read_elements<double, double>(n_elems);
      return array;
    case ValueType::STRING:
      array.elements = read_strings(n_elems);
      return array;
    case ValueType::BOOL: {
      if (n_elems > remaining()) fail_truncated(n_elems, "an array");
      std::vector<int64_t> elements(n_elems);
      for (int64_t& element : elements)
        element = read_bool("an array element") ? 1 : 0;
      array.elements = std::move(elements);
      return array;
    }
    case ValueType::ARRAY:
      fail("is an array of arrays, which no model uses and we don't read");
  }
  fail("is an array of elements of unknown type " + std::to_string(type_id) + ", expected 0 to 12");
}

Value Parser::read_value(ValueType type) {
  constexpr std::string_view kField = "its value";
  switch (type) {
    case ValueType::U8:
      return {type, uint64_t{read<uint8_t>(kField)}};
    case ValueType::U16:
      return {type, uint64_t{read<uint16_t>(kField)}};
    case ValueType::U32:
      return {type, uint64_t{read<uint32_t>(kField)}};
    case ValueType::U64:
      return {type, read<uint64_t>(kField)};
    case ValueType::I8:
      return {type, int64_t{read<int8_t>(kField)}};
    case ValueType::I16:
      return {type, int64_t{read<int16_t>(kField)}};
    case ValueType::I32:
      return {type, int64_t{read<int32_t>(kField)}};
    case ValueType::I64:
      return {type, read<int64_t>(kField)};
    case ValueType::F32:
      return {type, double{read<float>(kField)}};
    case ValueType::F64:
      return {type, read<double>(kField)};
    case ValueType::BOOL:
      return {type, read_bool(kField)};
    case ValueType::STRING:
      return {type, read_string(kField)};
    case ValueType::ARRAY:
      return {type, read_array()};
  }
  fail("has unknown value type " + std::to_string(static_cast<uint32_t>(type)) +
       ", expected 0 to 12");
}

KeyValue Parser::read_key_value() {
  KeyValue entry;
  entry.key = read_name("key", kMaxKeyBytes);
  where_.insert(where_.size() - 2, " (" + printable(entry.key) + ")");
  entry.value = read_value(static_cast<ValueType>(read<uint32_t>("its type")));
  return entry;
}

void Parser::read_alignment(const KeyValue& entry) {
  if (entry.value.type != ValueType::U32) {
    fail("has type " + std::to_string(static_cast<uint32_t>(entry.value.type)) +
         ", expected 4 (u32)");
  }
  const auto alignment = std::get<uint64_t>(entry.value.data);
  if (!std::has_single_bit(alignment)) {
    fail("is " + std::to_string(alignment) + ", expected a power of two");
  }
  alignment_ = static_cast<int64_t>(alignment);
}

void Parser::read_dims(TensorInfo& tensor) {
  const auto n_dims = read<uint32_t>("the number of dimensions");
  if (n_dims < 1 || n_dims > 4) {
    fail("has " + std::to_string(n_dims) + " dimensions, expected 1 to 4");
  }
  tensor.n_dims = static_cast<int>(n_dims);
  for (int i = 0; i < tensor.n_dims; ++i) {
    const auto dim = read<int64_t>("a dimension");
    if (dim <= 0) {
      fail("dimension " + std::to_string(i) + " is " + std::to_string(dim) +
           ", expected a positive number");
    }
    tensor.dims[static_cast<size_t>(i)] = dim;
  }
}

void Parser::set_size(TensorInfo& tensor) const {
  const DTypeInfo& info = dtype_info(tensor.dtype);
  if (tensor.dims[0] % info.block_elems != 0) {
    fail("rows have " + std::to_string(tensor.dims[0]) + " elements, expected a multiple of " +
         std::to_string(info.block_elems) + " for " + std::string(info.name));
  }
  // The element count is bounded too, so that users may multiply dimensions without a care.
  int64_t n_elems = 1;
  int64_t size_bytes = 0;
  bool overflow = false;
  for (const int64_t dim : tensor.dims)
    overflow |= __builtin_mul_overflow(n_elems, dim, &n_elems);
  overflow =
      overflow || __builtin_mul_overflow(n_elems / info.block_elems, info.block_bytes, &size_bytes);
  if (overflow) fail("its dimensions multiply to more than 2^63 elements or bytes");
  tensor.size_bytes = size_bytes;
}

TensorInfo Parser::read_tensor() {
  TensorInfo tensor;
  tensor.name = read_name("name", kMaxNameBytes);
  where_.insert(where_.size() - 2, " (" + printable(tensor.name) + ")");
  read_dims(tensor);
  const auto type_id = read<uint32_t>("its type");
  const std::optional<DType> dtype = dtype_from_id(type_id);
  if (!dtype) {
    const std::string_view retired = retired_dtype_name(type_id);
    if (!retired.empty()) {
      fail("has the retired type " + std::string(retired) + ": quantise the model again");
    }
    fail("has type " + std::to_string(type_id) +
         ", which this program does not know (a fork's own type, a newer one, or damage)");
  }
  tensor.dtype = *dtype;
  set_size(tensor);
  const auto offset = read<uint64_t>("its offset");
  if (offset > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    fail("its offset is " + std::to_string(offset) + ", beyond the end of the file");
  }
  tensor.offset_bytes = static_cast<int64_t>(offset);
  return tensor;
}

void Parser::place_tensors(std::vector<TensorInfo>& tensors) {
  const auto file_size = static_cast<int64_t>(file_size_);
  const auto position = static_cast<int64_t>(position_);
  const int64_t data_start = (position + alignment_ - 1) / alignment_ * alignment_;
  for (TensorInfo& tensor : tensors) {
    where_ = "tensor " + printable(tensor.name) + ": ";
    if (tensor.offset_bytes % alignment_ != 0) {
      fail("its offset " + std::to_string(tensor.offset_bytes) +
           " is no multiple of the alignment " + std::to_string(alignment_));
    }
    int64_t end = 0;
    if (__builtin_add_overflow(data_start, tensor.offset_bytes, &tensor.offset_bytes) ||
        __builtin_add_overflow(tensor.offset_bytes, tensor.size_bytes, &end) || end > file_size) {
      fail("the file ends at byte " + std::to_string(file_size) + ", but its " +
           std::to_string(tensor.size_bytes) + " bytes start at byte " +
           std::to_string(tensor.offset_bytes) +
           ": the download is incomplete (or this is one piece of a file cut by size); fetch it "
           "again");
    }
    // Of a prefix nobody asks for data.
    if (bytes_.size() == file_size_) tensor.data = bytes_.data() + tensor.offset_bytes;
  }
}

ParsedShard Parser::parse() {
  read_header();
  ParsedShard shard;
  shard.version = version_;
  for (uint64_t i = 0; i < n_metadata_; ++i) {
    where_ = "metadata " + std::to_string(i + 1) + " of " + std::to_string(n_metadata_) + ": ";
    shard.metadata.push_back(read_key_value());
    if (shard.metadata.back().key == "general.alignment") read_alignment(shard.metadata.back());
  }
  for (uint64_t i = 0; i < n_tensors_; ++i) {
    where_ = "tensor " + std::to_string(i + 1) + " of " + std::to_string(n_tensors_) + ": ";
    shard.tensors.push_back(read_tensor());
  }
  place_tensors(shard.tensors);
  return shard;
}

}  // namespace

ParsedShard parse_shard(const MappedFile& file) {
  return Parser(file.path(), file.bytes(), file.bytes().size()).parse();
}

int64_t header_bytes_needed(const std::filesystem::path& path, std::span<const std::byte> prefix,
                            int64_t file_size) {
  const auto size = static_cast<uint64_t>(std::max<int64_t>(file_size, 0));
  Parser parser(path, prefix.first(std::min<size_t>(prefix.size(), size)), size);
  try {
    parser.parse();
    return static_cast<int64_t>(parser.position());
  } catch (const NeedsMore& more) {
    return static_cast<int64_t>(more.n_bytes);
  }
}

}  // namespace dsctl::gguf
