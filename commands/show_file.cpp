#include "commands/show_file.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "commands/model_info.h"
#include "gguf/dtype.h"
#include "gguf/printable.h"
#include "gguf/type_totals.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLongArray = 64;     // elements; longer ones are left out of short JSON
constexpr size_t kArrayPreview = 8;   // elements of an array that text shows
constexpr size_t kStringBytes = 200;  // of a string that text shows

std::string type_name(gguf::DType dtype) {
  return std::string(gguf::dtype_info(dtype).name);
}

// A summary is for looking at a file: a key of an odd type is shown with the metadata, and silence
// here is better than no summary.
std::string text_of(const gguf::GgufFile& file, std::string_view key) {
  const gguf::Value* value = file.find(key);
  const auto* text = value ? std::get_if<std::string_view>(&value->data) : nullptr;
  return text ? std::string(*text) : std::string();
}

uint64_t number_of(const gguf::GgufFile& file, std::string_view key) {
  const gguf::Value* value = file.find(key);
  if (!value) return 0;
  if (const auto* number = std::get_if<uint64_t>(&value->data)) return *number;
  const auto* number = std::get_if<int64_t>(&value->data);
  return number && *number > 0 ? static_cast<uint64_t>(*number) : 0;
}

/// What one wants to know of a model first. Numbers are 0, strings empty when the file is silent.
struct ModelSummary {
  std::string architecture;
  std::string name;
  std::string license;
  std::string quantization;  // general.file_type's name, else the type that most bytes have
  int64_t n_parameters = 0;  // elements of all tensors
  uint64_t context_length = 0;
  uint64_t embedding_length = 0;
  uint64_t block_count = 0;
  uint64_t vocab_size = 0;
  uint64_t n_experts = 0;  // of a layer; 0: a dense model
  uint64_t n_used_experts = 0;
  uint64_t n_shared_experts = 0;
};

ModelSummary summarize(const gguf::GgufFile& file) {
  ModelSummary summary;
  summary.architecture = text_of(file, "general.architecture");
  summary.name = text_of(file, "general.name");
  summary.license = text_of(file, "general.license");
  summary.quantization = quantization_label(file);
  for (const gguf::TensorInfo& tensor : file.tensors())
    summary.n_parameters += tensor.n_elems();
  const std::string& prefix = summary.architecture;
  summary.context_length = number_of(file, prefix + ".context_length");
  summary.embedding_length = number_of(file, prefix + ".embedding_length");
  summary.block_count = number_of(file, prefix + ".block_count");
  summary.vocab_size = number_of(file, prefix + ".vocab_size");
  summary.n_experts = number_of(file, prefix + ".expert_count");
  summary.n_used_experts = number_of(file, prefix + ".expert_used_count");
  summary.n_shared_experts = number_of(file, prefix + ".expert_shared_count");
  const gguf::Value* tokens = file.find("tokenizer.ggml.tokens");
  const auto* array = tokens ? std::get_if<gguf::ArrayValue>(&tokens->data) : nullptr;
  if (summary.vocab_size == 0 && array) summary.vocab_size = array->size();
  return summary;
}

/// "256, 8 used by a token, 1 shared by all".
std::string experts_text(const ModelSummary& summary) {
  std::string text = std::to_string(summary.n_experts);
  if (summary.n_used_experts > 0) {
    text += ", " + std::to_string(summary.n_used_experts) + " used by a token";
  }
  if (summary.n_shared_experts > 0) {
    text += ", " + std::to_string(summary.n_shared_experts) + " shared by all";
  }
  return text;
}

/// The shortest text that reads back as the same float of the type it has in the file.
std::string float_text(double value, gguf::ValueType type) {
  std::array<char, 64> text{};
  char* const end = text.data() + text.size();
  const std::to_chars_result result =
      type == gguf::ValueType::F32 ? std::to_chars(text.data(), end, static_cast<float>(value))
                                   : std::to_chars(text.data(), end, value);
  return {text.data(), result.ptr};
}

std::string_view value_type_name(gguf::ValueType type) {
  switch (type) {
    case gguf::ValueType::U8:
      return "u8";
    case gguf::ValueType::I8:
      return "i8";
    case gguf::ValueType::U16:
      return "u16";
    case gguf::ValueType::I16:
      return "i16";
    case gguf::ValueType::U32:
      return "u32";
    case gguf::ValueType::I32:
      return "i32";
    case gguf::ValueType::F32:
      return "f32";
    case gguf::ValueType::BOOL:
      return "bool";
    case gguf::ValueType::STRING:
      return "string";
    case gguf::ValueType::ARRAY:
      return "array";
    case gguf::ValueType::U64:
      return "u64";
    case gguf::ValueType::I64:
      return "i64";
    case gguf::ValueType::F64:
      return "f64";
  }
  return "unknown";
}

/// One element of an array as text; the overloads follow ArrayValue's variant.
std::string element_text(int64_t value, gguf::ValueType type) {
  if (type == gguf::ValueType::BOOL) return value != 0 ? "true" : "false";
  return std::to_string(value);
}
std::string element_text(uint64_t value, gguf::ValueType /*type*/) {
  return std::to_string(value);
}
std::string element_text(double value, gguf::ValueType type) {
  return float_text(value, type);
}
std::string element_text(std::string_view value, gguf::ValueType /*type*/) {
  return '"' + gguf::printable(value, 40) + '"';
}

std::string array_text(const gguf::ArrayValue& array) {
  std::string text = "[";
  std::visit(
      [&](const auto& elements) {
        for (size_t i = 0; i < std::min(elements.size(), kArrayPreview); ++i) {
          if (i > 0) text += ", ";
          text += element_text(elements[i], array.element_type);
        }
      },
      array.elements);
  if (array.size() <= kArrayPreview) return text + "]";
  return text + ", ...] (" + std::to_string(array.size()) + " elements)";
}

std::string value_text(const gguf::Value& value) {
  if (const auto* number = std::get_if<uint64_t>(&value.data)) return std::to_string(*number);
  if (const auto* number = std::get_if<int64_t>(&value.data)) return std::to_string(*number);
  if (const auto* number = std::get_if<double>(&value.data)) return float_text(*number, value.type);
  if (const auto* flag = std::get_if<bool>(&value.data)) return *flag ? "true" : "false";
  if (const auto* text = std::get_if<std::string_view>(&value.data)) {
    return gguf::printable(*text, kStringBytes);
  }
  return array_text(std::get<gguf::ArrayValue>(value.data));
}

std::string shape_text(const gguf::TensorInfo& tensor) {
  std::string text;
  for (int i = 0; i < tensor.n_dims; ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(tensor.dims[static_cast<size_t>(i)]);
  }
  return "[" + text + "]";
}

Section file_section(const gguf::GgufFile& file) {
  Section section{"File", {}};
  section.rows.push_back({"format", "GGUF v" + std::to_string(file.version())});
  section.rows.push_back({"size", format_size(file.size_bytes())});
  if (file.shards().size() > 1) {
    section.rows.push_back({"shards", std::to_string(file.shards().size())});
  }
  section.rows.push_back({"tensors", std::to_string(file.tensors().size())});
  section.rows.push_back({"metadata keys", std::to_string(file.metadata().size())});
  return section;
}

Section types_section(const gguf::GgufFile& file) {
  Section section{"Tensor types", {}};
  for (const gguf::TypeTotal& total : gguf::type_totals(file)) {
    section.rows.push_back(
        {type_name(total.dtype), std::to_string(total.n_tensors), format_size(total.size_bytes)});
  }
  return section;
}

Section license_section(const gguf::GgufFile& file) {
  Section section{"License", {}};
  const std::string license = text_of(file, "general.license");
  if (!license.empty()) section.rows.push_back({gguf::printable(license)});
  return section;
}

/// A double whose JSON text is the shortest that reads back as the float in the file.
Json float_json(double value, gguf::ValueType type) {
  if (type != gguf::ValueType::F32 || !std::isfinite(value)) return value;
  const std::string text = float_text(value, type);
  double shortest = value;
  std::from_chars(text.data(), text.data() + text.size(), shortest);
  return shortest;
}

Json element_json(int64_t value, gguf::ValueType type) {
  if (type == gguf::ValueType::BOOL) return value != 0;
  return value;
}
Json element_json(uint64_t value, gguf::ValueType /*type*/) {
  return value;
}
Json element_json(double value, gguf::ValueType type) {
  return float_json(value, type);
}
Json element_json(std::string_view value, gguf::ValueType /*type*/) {
  return std::string(value);
}

Json array_json(const gguf::ArrayValue& array) {
  Json elements_json = Json::array();
  std::visit(
      [&](const auto& elements) {
        for (const auto& element : elements) {
          elements_json.push_back(element_json(element, array.element_type));
        }
      },
      array.elements);
  return elements_json;
}

Json metadata_json(const gguf::GgufFile& file, bool with_long_arrays) {
  Json metadata = Json::object();
  for (const gguf::KeyValue& entry : file.metadata()) {
    Json& to = metadata[std::string(entry.key)];
    const auto& data = entry.value.data;
    if (const auto* number = std::get_if<uint64_t>(&data)) to = *number;
    if (const auto* number = std::get_if<int64_t>(&data)) to = *number;
    if (const auto* number = std::get_if<double>(&data)) to = float_json(*number, entry.value.type);
    if (const auto* flag = std::get_if<bool>(&data)) to = *flag;
    if (const auto* text = std::get_if<std::string_view>(&data)) to = std::string(*text);
    const auto* array = std::get_if<gguf::ArrayValue>(&data);
    if (array && (with_long_arrays || array->size() <= kLongArray)) to = array_json(*array);
  }
  return metadata;
}

Json tensors_json(const gguf::GgufFile& file) {
  Json tensors = Json::array();
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    Json shape = Json::array();
    for (int i = 0; i < tensor.n_dims; ++i)
      shape.push_back(tensor.dims[static_cast<size_t>(i)]);
    tensors.push_back({{"name", std::string(tensor.name)},
                       {"type", type_name(tensor.dtype)},
                       {"shape", std::move(shape)},
                       {"size_bytes", tensor.size_bytes},
                       {"shard", tensor.shard_idx},
                       {"offset_bytes", tensor.offset_bytes}});
  }
  return tensors;
}

/// `value`, or null when it says nothing.
template <typename T>
Json or_null(const T& value) {
  return value == T() ? Json() : Json(value);
}

Json file_json(const gguf::GgufFile& file, const ShowFileOptions& options) {
  const ModelSummary summary = summarize(file);
  Json shards = Json::array();
  for (const gguf::MappedFile& shard : file.shards()) {
    shards.push_back({{"path", shard.path().string()}, {"size_bytes", shard.bytes().size()}});
  }
  Json types = Json::array();
  for (const gguf::TypeTotal& total : gguf::type_totals(file)) {
    types.push_back({{"type", type_name(total.dtype)},
                     {"count", total.n_tensors},
                     {"size_bytes", total.size_bytes}});
  }
  return {{"path", options.path.string()},
          {"format", {{"name", "gguf"}, {"version", file.version()}}},
          {"size_bytes", file.size_bytes()},
          {"shards", std::move(shards)},
          {"architecture", or_null(summary.architecture)},
          {"name", or_null(summary.name)},
          {"license", or_null(summary.license)},
          {"quantization", or_null(summary.quantization)},
          {"parameter_count", summary.n_parameters},
          {"context_length", or_null(summary.context_length)},
          {"embedding_length", or_null(summary.embedding_length)},
          {"block_count", or_null(summary.block_count)},
          {"vocab_size", or_null(summary.vocab_size)},
          {"expert_count", or_null(summary.n_experts)},
          {"expert_used_count", or_null(summary.n_used_experts)},
          {"expert_shared_count", or_null(summary.n_shared_experts)},
          {"tensor_types", std::move(types)},
          {"metadata", metadata_json(file, options.metadata)},
          {"tensors", tensors_json(file)}};
}

/// Columns that `text` takes, near enough: code points.
size_t text_width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  }));
}

/// The first `width` code points of `text`, with an ellipsis when something was cut.
std::string cut_text(const std::string& text, size_t width) {
  if (text_width(text) <= width) return text;
  size_t end = 0;
  for (size_t n_code_points = 0; end < text.size(); ++end) {
    if ((static_cast<unsigned char>(text[end]) & 0xc0) == 0x80) continue;
    if (++n_code_points + 3 > width) break;
  }
  return text.substr(0, end) + "...";
}

}  // namespace

std::string metadata_json_text(const gguf::GgufFile& file, LongArrays long_arrays) {
  return metadata_json(file, long_arrays == LongArrays::kFull)
      .dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string render(const std::vector<Section>& sections, int width) {
  constexpr size_t kIndent = 4;
  constexpr size_t kGap = 4;
  std::string out;
  for (const Section& section : sections) {
    if (section.rows.empty()) continue;
    out += "  " + section.title + "\n";
    std::vector<size_t> widths;
    for (const auto& row : section.rows) {
      widths.resize(std::max(widths.size(), row.size()));
      for (size_t i = 0; i < row.size(); ++i)
        widths[i] = std::max(widths[i], text_width(row[i]));
    }
    for (const auto& row : section.rows) {
      std::string line(kIndent, ' ');
      for (size_t i = 0; i + 1 < row.size(); ++i) {
        line += row[i] + std::string(widths[i] - text_width(row[i]) + kGap, ' ');
      }
      const size_t used = text_width(line);
      const size_t room = width > 0 ? static_cast<size_t>(width) : 0;
      const std::string& last = row.back();
      // A line with no room for a few words is better left to wrap.
      out += line + (room >= used + 16 ? cut_text(last, room - used) : last) + "\n";
    }
    out += "\n";
  }
  return out;
}

Section model_section(const gguf::GgufFile& file) {
  const ModelSummary summary = summarize(file);
  Section section{"Model", {}};
  const auto add = [&](const char* what, const std::string& value) {
    if (!value.empty()) section.rows.push_back({what, gguf::printable(value)});
  };
  const auto add_number = [&](const char* what, uint64_t value) {
    if (value != 0) add(what, std::to_string(value));
  };
  add("architecture", summary.architecture);
  add("parameters", format_parameter_count(summary.n_parameters));
  add_number("context length", summary.context_length);
  add_number("embedding length", summary.embedding_length);
  add("quantization", summary.quantization);
  add("name", summary.name);
  add_number("blocks", summary.block_count);
  add_number("vocabulary", summary.vocab_size);
  if (summary.n_experts > 0) add("experts", experts_text(summary));
  return section;
}

Section metadata_section(const gguf::GgufFile& file) {
  Section section{"Metadata", {}};
  for (const gguf::KeyValue& entry : file.metadata()) {
    const auto* array = std::get_if<gguf::ArrayValue>(&entry.value.data);
    const std::string type = array ? std::string(value_type_name(array->element_type)) + "[]"
                                   : std::string(value_type_name(entry.value.type));
    section.rows.push_back({gguf::printable(entry.key), type, value_text(entry.value)});
  }
  return section;
}

Section tensors_section(const gguf::GgufFile& file) {
  Section section{"Tensors", {}};
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    section.rows.push_back({gguf::printable(tensor.name), type_name(tensor.dtype),
                            shape_text(tensor), format_size(tensor.size_bytes)});
    if (file.shards().size() > 1) {
      section.rows.back().push_back("shard " + std::to_string(tensor.shard_idx + 1));
    }
  }
  return section;
}

int show_file(const ShowFileOptions& options, Console& console) {
  const gguf::GgufFile file = gguf::GgufFile::open(options.path);
  if (options.json) {
    const Json json = file_json(file, options);
    console.print(json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return 0;
  }
  std::vector<Section> sections{model_section(file), file_section(file), types_section(file),
                                license_section(file)};
  if (options.metadata) sections.push_back(metadata_section(file));
  if (options.tensors) sections.push_back(tensors_section(file));
  console.print(render(sections, console.stdout_is_terminal() ? console.width() : 0));
  return 0;
}

}  // namespace dsctl::commands
