#include "gguf/imatrix.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>

#include "gguf/error.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "gguf/mapped_file.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

constexpr std::string_view kSumsSuffix = ".in_sum2";
constexpr std::string_view kCountsSuffix = ".counts";
constexpr size_t kMaxEntries = 1 << 20;

/// `name` without `suffix`, if it ends in it.
std::optional<std::string_view> stem_of(std::string_view name, std::string_view suffix) {
  if (name.size() <= suffix.size() || !name.ends_with(suffix)) return std::nullopt;
  return name.substr(0, name.size() - suffix.size());
}

std::vector<float> floats_of(const TensorInfo& tensor, const std::string& label) {
  if (tensor.dtype != DType::F32) {
    throw Error(label + ": " + printable(tensor.name) + ": type " +
                std::string(dtype_info(tensor.dtype).name) + ", expected F32");
  }
  std::vector<float> values(static_cast<size_t>(tensor.n_elems()));
  std::memcpy(values.data(), tensor.data, values.size() * sizeof(float));
  return values;
}

void check(const ImportanceEntry& entry, const std::string& label) {
  for (const auto* values : {&entry.sums, &entry.counts}) {
    for (const float value : *values) {
      if (std::isfinite(value) && value >= 0) continue;
      throw Error(label + ": " + printable(entry.name) + ": has " + std::to_string(value) +
                  " among its sums or counts, expected numbers from 0 up");
    }
  }
}

void sort_entries(ImportanceMatrix& matrix, const std::string& label) {
  std::sort(matrix.entries.begin(), matrix.entries.end(),
            [](const auto& a, const auto& b) { return a.name < b.name; });
  const auto twin =
      std::adjacent_find(matrix.entries.begin(), matrix.entries.end(),
                         [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twin != matrix.entries.end()) {
    throw Error(label + ": " + printable(twin->name) + ": is there twice");
  }
}

ImportanceEntry join(std::string_view name, const TensorInfo& sums, const TensorInfo& counts,
                     const std::string& label) {
  ImportanceEntry entry;
  entry.name = name;
  entry.n_cols = sums.dims[0];
  entry.sums = floats_of(sums, label);
  entry.counts = floats_of(counts, label);
  // A dense weight that is several matrices (of heads) may have one count for all.
  const int64_t n_matrices = sums.n_rows();
  if (entry.n_matrices() == 1 && n_matrices > 1) {
    entry.counts.assign(static_cast<size_t>(n_matrices), entry.counts[0]);
  }
  if (entry.n_matrices() != n_matrices) {
    throw Error(label + ": " + printable(name) + ": " + std::to_string(entry.n_matrices()) +
                " counts for " + std::to_string(n_matrices) + " rows of sums, expected one each");
  }
  check(entry, label);
  return entry;
}

ImportanceMatrix from_gguf(const GgufFile& file, const std::string& label) {
  const auto type = file.find_string("general.type");
  if (!type || *type != "imatrix") {
    throw Error(label + ": general.type is " + (type ? "'" + printable(*type) + "'" : "missing") +
                ", expected 'imatrix': this is no importance matrix");
  }
  ImportanceMatrix matrix;
  matrix.n_chunks = static_cast<uint32_t>(file.find_uint("imatrix.chunk_count").value_or(0));
  matrix.chunk_tokens = static_cast<uint32_t>(file.find_uint("imatrix.chunk_size").value_or(0));
  if (const ArrayValue* datasets = file.find_array("imatrix.datasets")) {
    const auto* texts = std::get_if<std::vector<std::string_view>>(&datasets->elements);
    if (texts == nullptr) throw Error(label + ": imatrix.datasets: expected an array of strings");
    matrix.datasets.assign(texts->begin(), texts->end());
  }
  for (const TensorInfo& tensor : file.tensors()) {
    const auto name = stem_of(tensor.name, kSumsSuffix);
    if (!name) continue;
    const TensorInfo* counts = file.find_tensor(std::string(*name) + std::string(kCountsSuffix));
    if (counts == nullptr) {
      throw Error(label + ": " + printable(*name) +
                  ": has sums but no counts: the file is damaged");
    }
    matrix.entries.push_back(join(*name, tensor, *counts, label));
  }
  sort_entries(matrix, label);
  return matrix;
}

/// Little-endian fields of the old form, checked against the end.
class LegacyReader {
 public:
  LegacyReader(std::span<const std::byte> bytes, const std::string& label)
      : bytes_(bytes), label_(label) {}

  bool at_end() const { return position_ == bytes_.size(); }
  int32_t count(const char* what, int64_t max) {
    int32_t value = 0;
    std::memcpy(&value, take(sizeof(value), what), sizeof(value));
    if (value < 0 || value > max) {
      throw Error(label_ + ": " + what + " is " + std::to_string(value) + ", expected 0 to " +
                  std::to_string(max) + ": no importance matrix, or damaged");
    }
    return value;
  }
  std::string text(const char* what) {
    const int32_t size = count(what, 1 << 16);
    const auto* data = reinterpret_cast<const char*>(take(static_cast<size_t>(size), what));
    return {data, static_cast<size_t>(size)};
  }
  std::vector<float> floats(int32_t n) {
    std::vector<float> values;
    const std::byte* data = take(static_cast<size_t>(n) * sizeof(float), "an entry's values");
    values.resize(static_cast<size_t>(n));
    if (n > 0) std::memcpy(values.data(), data, values.size() * sizeof(float));
    return values;
  }

 private:
  const std::byte* take(size_t size, const char* what) {
    if (bytes_.size() - position_ < size) {
      throw Error(label_ + ": ends at byte " + std::to_string(bytes_.size()) + ", " + what +
                  " needs " + std::to_string(size) + " from byte " + std::to_string(position_));
    }
    const std::byte* data = bytes_.data() + position_;
    position_ += size;
    return data;
  }

  std::span<const std::byte> bytes_;
  std::string label_;
  size_t position_ = 0;
};

}  // namespace

ImportanceMatrix ImportanceMatrix::parse_legacy(std::span<const std::byte> bytes,
                                                const std::string& label) {
  LegacyReader reader(bytes, label);
  ImportanceMatrix matrix;
  const int32_t n_entries = reader.count("the number of entries", kMaxEntries);
  for (int32_t i = 0; i < n_entries; ++i) {
    ImportanceEntry entry;
    entry.name = reader.text("an entry's name");
    const int32_t n_calls = reader.count("an entry's number of calls", INT32_MAX);
    const int32_t n_values = reader.count("an entry's number of values", INT32_MAX);
    if (n_values == 0) {
      throw Error(label + ": " + printable(entry.name) + ": has no values");
    }
    // The values are mean * calls over all rows: experts lie one after another, undivided.
    entry.n_cols = n_values;
    entry.sums = reader.floats(n_values);
    entry.counts = {static_cast<float>(std::max(n_calls, 1))};
    check(entry, label);
    matrix.entries.push_back(std::move(entry));
  }
  if (!reader.at_end()) {  // older files stop here
    matrix.n_chunks = static_cast<uint32_t>(reader.count("the number of chunks", INT32_MAX));
    if (!reader.at_end()) matrix.datasets.push_back(reader.text("the data set's name"));
  }
  sort_entries(matrix, label);
  return matrix;
}

ImportanceMatrix ImportanceMatrix::read(const std::filesystem::path& path) {
  const std::string label = path.string();
  {
    const MappedFile file(path);
    const auto bytes = file.bytes();
    if (bytes.size() >= 4 && std::memcmp(bytes.data(), "GGUF", 4) != 0) {
      return parse_legacy(bytes, label);
    }
  }
  return from_gguf(GgufFile::open(path), label);
}

void ImportanceMatrix::write(const std::filesystem::path& path) const {
  GgufWriter writer;
  writer.add("general.type", "imatrix");
  writer.add_strings("imatrix.datasets", datasets);
  writer.add("imatrix.chunk_count", n_chunks);
  writer.add("imatrix.chunk_size", chunk_tokens);
  for (const ImportanceEntry& entry : entries) {
    writer.add_tensor(entry.name + std::string(kSumsSuffix), {entry.n_cols, entry.n_matrices()},
                      entry.sums);
    writer.add_tensor(entry.name + std::string(kCountsSuffix), {1, entry.n_matrices()},
                      entry.counts);
  }
  writer.write(path);
}

const ImportanceEntry* ImportanceMatrix::find(std::string_view name) const {
  const auto found = std::lower_bound(entries.begin(), entries.end(), name,
                                      [](const ImportanceEntry& entry, std::string_view wanted) {
                                        return std::string_view(entry.name) < wanted;
                                      });
  return found != entries.end() && found->name == name ? &*found : nullptr;
}

std::vector<float> mean_squares(const ImportanceEntry& entry) {
  std::vector<float> means(entry.sums.size());
  const auto n_cols = static_cast<size_t>(entry.n_cols);
  for (size_t i = 0; i < means.size(); ++i) {
    const float count = entry.counts[i / n_cols];
    means[i] = count > 0 ? entry.sums[i] / count : 1.0F;
  }
  return means;
}

}  // namespace dsctl::gguf
