#include "gguf/gguf_file.h"

#include <limits>
#include <type_traits>
#include <unordered_map>
#include <utility>

#include "gguf/error.h"
#include "gguf/printable.h"
#include "gguf/shard_parser.h"
#include "gguf/split.h"

namespace dsctl::gguf {

struct GgufFile::Index {
  std::unordered_map<std::string_view, size_t> metadata;
  std::unordered_map<std::string_view, size_t> tensors;
};

/// One file of a model with what it says about the split it belongs to.
struct GgufFile::Shard {
  MappedFile file;
  ParsedShard parsed;
  uint64_t n_shards = 1;  // split.count; absent and 0 mean 1
  uint64_t shard_idx = 0;
  std::optional<uint64_t> n_tensors_total;

  explicit Shard(MappedFile mapped);
  explicit Shard(const std::filesystem::path& path) : Shard(MappedFile(path)) {}
  std::string name() const { return file.path().string(); }
};

namespace {

constexpr std::string_view kSplitCount = "split.count";
constexpr std::string_view kSplitNo = "split.no";
constexpr std::string_view kSplitTensors = "split.tensors.count";

std::string_view type_name(ValueType type) {
  switch (type) {
    case ValueType::U8:
      return "u8";
    case ValueType::I8:
      return "i8";
    case ValueType::U16:
      return "u16";
    case ValueType::I16:
      return "i16";
    case ValueType::U32:
      return "u32";
    case ValueType::I32:
      return "i32";
    case ValueType::F32:
      return "f32";
    case ValueType::BOOL:
      return "bool";
    case ValueType::STRING:
      return "string";
    case ValueType::ARRAY:
      return "array";
    case ValueType::U64:
      return "u64";
    case ValueType::I64:
      return "i64";
    case ValueType::F64:
      return "f64";
  }
  return "unknown";
}

[[noreturn]] void fail_type(std::string_view key, const Value& value, std::string_view expected) {
  throw Error(std::string(key) + ": has type " + std::string(type_name(value.type)) +
              ", expected " + std::string(expected));
}

/// `value` as an integer of type `T`.
template <typename T>
T to_integer(std::string_view key, const Value& value) {
  const auto convert = [&](auto number) -> T {
    if (!std::in_range<T>(number)) {
      throw Error(std::string(key) + ": is " + std::to_string(number) + ", which is out of range");
    }
    return static_cast<T>(number);
  };
  if (const auto* number = std::get_if<uint64_t>(&value.data)) return convert(*number);
  if (const auto* number = std::get_if<int64_t>(&value.data)) return convert(*number);
  fail_type(key, value, "an integer");
}

const Value* find_in(const ParsedShard& shard, std::string_view key) {
  for (const KeyValue& entry : shard.metadata) {
    if (entry.key == key) return &entry.value;
  }
  return nullptr;
}

std::optional<uint64_t> find_uint_in(const MappedFile& file, const ParsedShard& shard,
                                     std::string_view key) {
  const Value* value = find_in(shard, key);
  if (!value) return std::nullopt;
  return to_integer<uint64_t>(file.path().string() + ": " + std::string(key), *value);
}

std::string shard_of(uint64_t idx, uint64_t count) {
  return "shard " + std::to_string(idx + 1) + " of " + std::to_string(count);
}

/// The paths of all shards beside `path`, which says it is `shard_idx` of `n_shards`.
std::vector<std::filesystem::path> shard_paths(const std::filesystem::path& path,
                                               uint64_t shard_idx, uint64_t n_shards) {
  std::optional<ShardName> name = parse_shard_name(path.filename().string());
  const std::string claim = path.string() + ": says it is " + shard_of(shard_idx, n_shards);
  if (!name) {
    throw Error(claim +
                ", but its name does not end in -NNNNN-of-NNNNN.gguf, so the other shards "
                "can't be found beside it: give it its name back");
  }
  if (static_cast<uint64_t>(name->n_shards) != n_shards ||
      static_cast<uint64_t>(name->shard_idx) != shard_idx) {
    throw Error(
        claim + " (split.no " + std::to_string(shard_idx) + ", split.count " +
        std::to_string(n_shards) + "), but its name says " +
        shard_of(static_cast<uint64_t>(name->shard_idx), static_cast<uint64_t>(name->n_shards)) +
        ": a file was renamed or belongs to another model");
  }
  std::vector<std::filesystem::path> paths;
  std::string missing;
  size_t n_missing = 0;
  for (int i = 0; i < name->n_shards; ++i) {
    name->shard_idx = i;
    paths.push_back(path.parent_path() / shard_file_name(*name));
    std::error_code ignored;
    if (std::filesystem::exists(paths.back(), ignored)) continue;
    if (++n_missing <= 3) missing += (n_missing > 1 ? ", " : "") + paths.back().string();
  }
  if (n_missing > 3) missing += " and " + std::to_string(n_missing - 3) + " more";
  if (n_missing > 0) {
    throw Error(std::to_string(n_missing) + " of " + std::to_string(n_shards) +
                " shards missing: " + missing + " (looked for beside " + path.filename().string() +
                "): fetch the rest");
  }
  return paths;
}

}  // namespace

GgufFile::Shard::Shard(MappedFile mapped) : file(std::move(mapped)), parsed(parse_shard(file)) {
  n_shards = find_uint_in(file, parsed, kSplitCount).value_or(1);
  if (n_shards == 0) n_shards = 1;
  shard_idx = find_uint_in(file, parsed, kSplitNo).value_or(0);
  n_tensors_total = find_uint_in(file, parsed, kSplitTensors);
  if (n_shards > 65535) {
    throw Error(name() + ": split.count is " + std::to_string(n_shards) + ", at most 65535");
  }
  if (shard_idx >= n_shards) {
    throw Error(name() + ": split.no is " + std::to_string(shard_idx) +
                ", expected less than split.count " + std::to_string(n_shards));
  }
}

GgufFile::GgufFile() : index_(std::make_unique<Index>()) {}
GgufFile::~GgufFile() = default;
GgufFile::GgufFile(GgufFile&&) noexcept = default;
GgufFile& GgufFile::operator=(GgufFile&&) noexcept = default;

GgufFile GgufFile::open(const std::filesystem::path& path) {
  Shard given(path);
  const size_t given_idx = given.shard_idx;
  std::vector<Shard> shards;
  if (given.n_shards == 1) {
    shards.push_back(std::move(given));
    return join(std::move(shards));
  }
  const std::vector<std::filesystem::path> paths =
      shard_paths(path, given.shard_idx, given.n_shards);
  for (size_t i = 0; i < paths.size(); ++i) {
    if (i != given_idx) shards.emplace_back(paths[i]);
  }
  shards.insert(shards.begin() + static_cast<ptrdiff_t>(given_idx), std::move(given));
  return join(std::move(shards));
}

GgufFile GgufFile::open_shards(const std::vector<std::filesystem::path>& paths) {
  if (paths.empty()) throw Error("no GGUF file given");
  std::vector<Shard> shards;
  shards.reserve(paths.size());
  for (const std::filesystem::path& path : paths)
    shards.emplace_back(path);
  return join(std::move(shards));
}

GgufFile GgufFile::open_headers(const std::vector<PartialFile>& files) {
  if (files.empty()) throw Error("no GGUF file given");
  std::vector<Shard> shards;
  shards.reserve(files.size());
  for (const PartialFile& file : files)
    shards.emplace_back(MappedFile::of_prefix(file.path, file.prefix, file.size_bytes));
  return join(std::move(shards));
}

GgufFile GgufFile::join(std::vector<Shard> shards) {
  GgufFile model;
  const Shard& first = shards.front();
  model.version_ = first.parsed.version;
  const uint64_t n_shards = shards.size();
  uint64_t n_tensors = 0;
  for (size_t i = 0; i < shards.size(); ++i) {
    const Shard& shard = shards[i];
    if (shard.n_shards != n_shards) {
      throw Error(shard.name() + ": is " + shard_of(shard.shard_idx, shard.n_shards) +
                  ", but was given as " + shard_of(i, n_shards) +
                  ": all shards of one model are needed, and no others");
    }
    if (shard.shard_idx != i) {
      throw Error(shard.name() + ": split.no is " + std::to_string(shard.shard_idx) +
                  ", expected " + std::to_string(i) + " (" + shard_of(i, n_shards) +
                  "): the shards are out of order or renamed");
    }
    if (shard.n_tensors_total != first.n_tensors_total) {
      throw Error(shard.name() + ": split.tensors.count differs from that of " + first.name() +
                  ": it is a shard of another model");
    }
    n_tensors += shard.parsed.tensors.size();
  }
  if (first.n_tensors_total && *first.n_tensors_total != n_tensors) {
    throw Error(first.name() + ": split.tensors.count is " +
                std::to_string(*first.n_tensors_total) + ", but the " + std::to_string(n_shards) +
                " shards hold " + std::to_string(n_tensors) +
                " tensors: a shard belongs to another model");
  }
  model.metadata_ = std::move(shards.front().parsed.metadata);
  for (size_t i = 0; i < model.metadata_.size(); ++i) {
    if (!model.index_->metadata.emplace(model.metadata_[i].key, i).second) {
      throw Error(first.name() + ": metadata key " + printable(model.metadata_[i].key) +
                  " appears twice");
    }
  }
  model.tensors_.reserve(n_tensors);
  for (size_t i = 0; i < shards.size(); ++i) {
    for (TensorInfo& tensor : shards[i].parsed.tensors) {
      tensor.shard_idx = static_cast<int>(i);
      const auto [twin, is_new] = model.index_->tensors.emplace(tensor.name, model.tensors_.size());
      if (!is_new) {
        const int twin_shard = model.tensors_[twin->second].shard_idx;
        throw Error(shards[i].name() + ": tensor " + printable(tensor.name) + " appears twice" +
                    (n_shards > 1 ? ", first in " + shards[static_cast<size_t>(twin_shard)].name()
                                  : std::string()));
      }
      model.tensors_.push_back(tensor);
    }
  }
  for (Shard& shard : shards)
    model.shards_.push_back(std::move(shard.file));
  return model;
}

int64_t GgufFile::size_bytes() const {
  int64_t size = 0;
  for (const MappedFile& shard : shards_)
    size += static_cast<int64_t>(shard.bytes().size());
  return size;
}

size_t ArrayValue::size() const {
  return std::visit([](const auto& values) { return values.size(); }, elements);
}

const Value* GgufFile::find(std::string_view key) const {
  const auto entry = index_->metadata.find(key);
  return entry == index_->metadata.end() ? nullptr : &metadata_[entry->second].value;
}

const TensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const auto entry = index_->tensors.find(name);
  return entry == index_->tensors.end() ? nullptr : &tensors_[entry->second];
}

namespace {

/// What a `find_x` found, or the error of `get_x`.
template <typename T>
T require(std::string_view key, const std::optional<T>& found) {
  if (!found) throw Error(std::string(key) + ": missing from the model's metadata");
  return *found;
}

}  // namespace

std::string_view GgufFile::get_string(std::string_view key) const {
  return require(key, find_string(key));
}

uint64_t GgufFile::get_uint(std::string_view key) const {
  return require(key, find_uint(key));
}

double GgufFile::get_float(std::string_view key) const {
  return require(key, find_float(key));
}

std::optional<std::string_view> GgufFile::find_string(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* text = std::get_if<std::string_view>(&value->data)) return *text;
  fail_type(key, *value, "a string");
}

std::optional<int64_t> GgufFile::find_int(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  return to_integer<int64_t>(key, *value);
}

std::optional<uint64_t> GgufFile::find_uint(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  return to_integer<uint64_t>(key, *value);
}

std::optional<double> GgufFile::find_float(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* number = std::get_if<double>(&value->data)) return *number;
  // Some writers store whole numbers such as rope.freq_base as integers.
  if (const auto* number = std::get_if<uint64_t>(&value->data)) return static_cast<double>(*number);
  if (const auto* number = std::get_if<int64_t>(&value->data)) return static_cast<double>(*number);
  fail_type(key, *value, "a number");
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return std::nullopt;
  if (const auto* flag = std::get_if<bool>(&value->data)) return *flag;
  fail_type(key, *value, "a bool");
}

const ArrayValue* GgufFile::find_array(std::string_view key) const {
  const Value* value = find(key);
  if (!value) return nullptr;
  if (const auto* array = std::get_if<ArrayValue>(&value->data)) return array;
  fail_type(key, *value, "an array");
}

std::string_view GgufFile::architecture() const {
  return get_string("general.architecture");
}

}  // namespace dsctl::gguf
