#include "gguf/convert/safetensors.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <set>

#include "gguf/convert/json_file.h"
#include "gguf/error.h"
#include "gguf/foreign_file.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference's limit
constexpr size_t kMaxTensors = 1'000'000;
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxDims = 8;

struct ScalarInfo {
  ScalarType type;
  std::string_view name;
  int bytes;
};

constexpr std::array<ScalarInfo, 15> kScalars{{
    {ScalarType::kBool, "BOOL", 1},
    {ScalarType::kU8, "U8", 1},
    {ScalarType::kI8, "I8", 1},
    {ScalarType::kF8E4M3, "F8_E4M3", 1},
    {ScalarType::kF8E5M2, "F8_E5M2", 1},
    {ScalarType::kI16, "I16", 2},
    {ScalarType::kU16, "U16", 2},
    {ScalarType::kF16, "F16", 2},
    {ScalarType::kBF16, "BF16", 2},
    {ScalarType::kI32, "I32", 4},
    {ScalarType::kU32, "U32", 4},
    {ScalarType::kF32, "F32", 4},
    {ScalarType::kI64, "I64", 8},
    {ScalarType::kU64, "U64", 8},
    {ScalarType::kF64, "F64", 8},
}};

const ScalarInfo& info(ScalarType type) {
  return kScalars[static_cast<size_t>(type)];
}

/// A tensor's place in the data section of its file.
struct Place {
  uint64_t begin = 0;
  uint64_t end = 0;
  size_t tensor_idx = 0;
};

class HeaderParser {
 public:
  HeaderParser(std::span<const std::byte> file, std::string_view label)
      : file_(file), label_(label) {}

  std::vector<SafeTensor> parse() {
    const Json header = parse_json(header_text());
    for (const auto& [name, value] : header.items()) {
      if (name != "__metadata__") add(name, value);
    }
    check_places();
    for (const Place& place : places_) {
      tensors_[place.tensor_idx].data = data_.subspan(place.begin, place.end - place.begin);
    }
    std::sort(tensors_.begin(), tensors_.end(),
              [](const SafeTensor& a, const SafeTensor& b) { return a.name < b.name; });
    return std::move(tensors_);
  }

 private:
  [[noreturn]] void fail(const std::string& message) const {
    throw Error(std::string(label_) + ": " + message);
  }
  [[noreturn]] void fail(std::string_view name, const std::string& message) const {
    fail("tensor \"" + printable(name) + "\": " + message);
  }

  std::string_view header_text() {
    uint64_t header_bytes = 0;
    if (file_.size() >= sizeof(header_bytes)) {
      std::memcpy(&header_bytes, file_.data(), sizeof(header_bytes));
    }
    const bool plausible = file_.size() > 8 && header_bytes >= 2 &&
                           header_bytes <= kMaxHeaderBytes && file_[8] == std::byte{'{'};
    if (!plausible) fail(describe_no_safetensors());
    if (header_bytes > file_.size() - 8) {
      fail("the header has " + std::to_string(header_bytes) + " bytes, but the file ends after " +
           std::to_string(file_.size() - 8) + " of them; the download is incomplete");
    }
    data_ = file_.subspan(8 + header_bytes);
    return {reinterpret_cast<const char*>(file_.data()) + 8, static_cast<size_t>(header_bytes)};
  }

  std::string describe_no_safetensors() const {
    const std::string_view start(reinterpret_cast<const char*>(file_.data()),
                                 std::min<size_t>(file_.size(), 24));
    if (start.starts_with("version https://git-lfs")) return describe_foreign_file(file_);
    return "is no safetensors file: expected the length of a header and a JSON object";
  }

  Json parse_json(std::string_view text) const {
    std::set<std::string> names;
    std::string repeated;
    const auto callback = [&](int depth, Json::parse_event_t event, Json& value) {
      if (event == Json::parse_event_t::key && depth == 1) {
        const auto& name = value.get_ref<const std::string&>();
        if (!names.insert(name).second) repeated = name;
      }
      return true;
    };
    try {
      Json header = Json::parse(text, callback);
      if (!header.is_object()) fail("the header is no JSON object");
      if (!repeated.empty()) fail(repeated, "is there twice");
      if (header.size() > kMaxTensors) {
        fail(std::to_string(header.size()) + " tensors, expected at most " +
             std::to_string(kMaxTensors));
      }
      return header;
    } catch (const Json::exception& error) {
      fail("the header is no valid JSON: " + printable(error.what(), 200));
    }
  }

  void add(const std::string& name, const Json& value) {
    if (name.empty() || name.size() > kMaxNameBytes) {
      fail(name, "a name of " + std::to_string(name.size()) + " bytes, expected 1 to " +
                     std::to_string(kMaxNameBytes));
    }
    SafeTensor tensor;
    tensor.name = name;
    const auto type = string_member(value, "dtype");
    const auto known = std::find_if(kScalars.begin(), kScalars.end(), [&](const ScalarInfo& row) {
      return type && row.name == *type;
    });
    if (known == kScalars.end()) {
      fail(name, "type \"" + printable(type.value_or("")) + "\" is not supported");
    }
    tensor.type = known->type;
    const uint64_t size = read_shape(name, value, tensor);
    const Json* offsets = array_member(value, "data_offsets");
    if (!offsets || offsets->size() != 2 || !(*offsets)[0].is_number_unsigned() ||
        !(*offsets)[1].is_number_unsigned()) {
      fail(name, "data_offsets: expected two numbers");
    }
    const Place place{(*offsets)[0].get<uint64_t>(), (*offsets)[1].get<uint64_t>(),
                      tensors_.size()};
    if (place.begin > place.end || place.end - place.begin != size) {
      fail(name, "data_offsets " + std::to_string(place.begin) + " to " +
                     std::to_string(place.end) + ", but its shape takes " + std::to_string(size) +
                     " bytes");
    }
    places_.push_back(place);
    tensors_.push_back(std::move(tensor));
  }

  /// Reads the shape into `tensor`; gives the size in bytes.
  uint64_t read_shape(const std::string& name, const Json& value, SafeTensor& tensor) const {
    const Json* shape = array_member(value, "shape");
    if (!shape || shape->size() > kMaxDims) {
      fail(name, "shape: expected an array of at most " + std::to_string(kMaxDims) + " numbers");
    }
    uint64_t size = static_cast<uint64_t>(scalar_bytes(tensor.type));
    for (const Json& dim : *shape) {
      const uint64_t n = dim.is_number_unsigned() ? dim.get<uint64_t>() : 0;
      if (!dim.is_number_unsigned() || n > uint64_t{1} << 40) fail(name, "shape: bad dimension");
      if (n != 0 && size > (uint64_t{1} << 60) / n) fail(name, "shape: too many elements");
      size *= n;
      tensor.shape.push_back(static_cast<int64_t>(n));
    }
    return size;
  }

  /// Tensors must lie one after the other and fill the file.
  void check_places() {
    std::vector<Place> sorted = places_;
    std::sort(sorted.begin(), sorted.end(), [](const Place& a, const Place& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    uint64_t end = 0;
    for (const Place& place : sorted) {
      if (place.begin != end) {
        fail(tensors_[place.tensor_idx].name, "begins at byte " + std::to_string(place.begin) +
                                                  " of the data, expected " + std::to_string(end));
      }
      end = place.end;
    }
    if (end > data_.size()) {
      fail("its tensors take " + std::to_string(end) + " bytes, but the file has " +
           std::to_string(data_.size()) + " bytes of data; the download is incomplete");
    }
    if (end < data_.size()) {
      fail(std::to_string(data_.size() - end) + " bytes after the last tensor");
    }
  }

  std::span<const std::byte> file_;
  std::string_view label_;
  std::span<const std::byte> data_;
  std::vector<SafeTensor> tensors_;
  std::vector<Place> places_;
};

/// What model.safetensors.index.json says: tensor name -> file name.
std::map<std::string, std::string> read_index(const fs::path& path) {
  std::map<std::string, std::string> index;
  const auto json = read_json(path, kMaxIndexBytes);
  if (!json) return index;
  const Json* weight_map = object_member(*json, "weight_map");
  if (!weight_map) throw Error(path.string() + ": weight_map: expected an object");
  for (const auto& [name, file] : weight_map->items()) {
    if (!file.is_string()) {
      throw Error(path.string() + ": " + printable(name) + ": expected a name");
    }
    const auto& file_name = file.get_ref<const std::string&>();
    if (file_name.empty() || file_name.find('/') != std::string::npos || file_name == "..") {
      throw Error(path.string() + ": " + printable(name) + ": \"" + printable(file_name) +
                  "\" is no name of a file in this directory");
    }
    index.emplace(name, file_name);
  }
  if (index.empty()) throw Error(path.string() + ": weight_map is empty");
  return index;
}

std::vector<std::string> files_without_index(const fs::path& dir) {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entry(dir, error);
  for (const fs::directory_iterator end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name.starts_with("model") && name.ends_with(".safetensors")) names.push_back(name);
  }
  if (error) throw Error(dir.string() + ": can't read the directory: " + error.message());
  if (names.empty()) throw Error(dir.string() + ": no model*.safetensors in this directory");
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

std::string_view scalar_name(ScalarType type) {
  return info(type).name;
}

int scalar_bytes(ScalarType type) {
  return info(type).bytes;
}

int64_t SafeTensor::n_elems() const {
  int64_t n = 1;
  for (const int64_t dim : shape)
    n *= dim;
  return n;
}

std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> file, std::string_view label) {
  return HeaderParser(file, label).parse();
}

Checkpoint Checkpoint::open(const fs::path& dir) {
  const fs::path index_path = dir / "model.safetensors.index.json";
  const std::map<std::string, std::string> index = read_index(index_path);
  std::vector<std::string> names;
  if (index.empty()) {
    names = files_without_index(dir);
  } else {
    std::set<std::string> unique;
    for (const auto& [tensor, file] : index)
      unique.insert(file);
    names.assign(unique.begin(), unique.end());
  }
  Checkpoint checkpoint;
  for (const std::string& name : names) {
    const fs::path path = dir / name;
    std::error_code error;
    if (!fs::exists(path, error)) {
      throw Error(path.string() + ": no such file, but " + index_path.filename().string() +
                  " names it; the checkpoint is incomplete");
    }
    checkpoint.files_.emplace_back(path);
    for (SafeTensor& tensor : parse_safetensors(checkpoint.files_.back().bytes(), path.string())) {
      const auto expected = index.find(tensor.name);
      if (!index.empty() && (expected == index.end() || expected->second != name)) {
        throw Error(path.string() + ": tensor \"" + printable(tensor.name) +
                    "\" is not where the index has it");
      }
      if (!checkpoint.by_name_.emplace(tensor.name, checkpoint.tensors_.size()).second) {
        throw Error(path.string() + ": tensor \"" + printable(tensor.name) +
                    "\" is in another file too");
      }
      checkpoint.tensors_.push_back(std::move(tensor));
    }
  }
  for (const auto& [name, file] : index) {
    if (checkpoint.find(name)) continue;
    throw Error((dir / file).string() + ": has no tensor \"" + printable(name) +
                "\", but the index says so; the checkpoint is incomplete");
  }
  return checkpoint;
}

const SafeTensor* Checkpoint::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

int64_t Checkpoint::size_bytes() const {
  int64_t size = 0;
  for (const MappedFile& file : files_)
    size += static_cast<int64_t>(file.bytes().size());
  return size;
}

}  // namespace dsctl::gguf::convert
