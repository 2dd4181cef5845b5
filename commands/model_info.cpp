#include "commands/model_info.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <ctime>
#include <map>
#include <nlohmann/json.hpp>

#include "gguf/dtype.h"
#include "templates/chat_template.h"
#include "templates/error.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::json;

// 4, 5, 6 and 33 to 35 are retired.
constexpr std::array<std::string_view, 42> kFileTypes{
    "F32",   "F16",     "Q4_0",   "Q4_1",   "Q4_1_F16", "",        "",       "Q8_0",   "Q5_0",
    "Q5_1",  "Q2_K",    "Q3_K_S", "Q3_K_M", "Q3_K_L",   "Q4_K_S",  "Q4_K_M", "Q5_K_S", "Q5_K_M",
    "Q6_K",  "IQ2_XXS", "IQ2_XS", "Q2_K_S", "IQ3_XS",   "IQ3_XXS", "IQ1_S",  "IQ4_NL", "IQ3_S",
    "IQ3_M", "IQ2_S",   "IQ2_M",  "IQ4_XS", "IQ1_M",    "BF16",    "",       "",       "",
    "TQ1_0", "TQ2_0",   "MXFP4",  "NVFP4",  "Q1_0",     "Q2_0"};
constexpr uint64_t kGuessedFileType = 1024;

std::string format(const char* pattern, double value) {
  std::array<char, 64> text{};
  std::snprintf(text.data(), text.size(), pattern, value);
  return text.data();
}

std::string duration_words(int64_t seconds) {
  const auto count = [](int64_t n, const char* unit) { return std::to_string(n) + " " + unit; };
  if (seconds < 1) return "Less than a second";
  if (seconds == 1) return "1 second";
  if (seconds < 60) return count(seconds, "seconds");
  const int64_t minutes = seconds / 60;
  if (minutes == 1) return "About a minute";
  if (minutes < 60) return count(minutes, "minutes");
  const int64_t hours = (seconds + 1800) / 3600;
  if (hours == 1) return "About an hour";
  if (hours < 48) return count(hours, "hours");
  if (hours < 24 * 7 * 2) return count(hours / 24, "days");
  if (hours < 24 * 30 * 2) return count(hours / 24 / 7, "weeks");
  if (hours < 24 * 365 * 2) return count(hours / 24 / 30, "months");
  return count(seconds / 3600 / 24 / 365, "years");
}

std::string parameter_text(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// What the template can do; nothing when it is absent or can't be parsed.
templates::TemplateCapabilities template_capabilities(const gguf::GgufFile& file,
                                                      const std::optional<std::string>& go_source) {
  using templates::TemplateLanguage;
  const auto own = file.find_string("tokenizer.chat_template");
  if (!go_source && !own) return {};
  try {
    auto found =
        templates::ChatTemplate::parse(go_source ? TemplateLanguage::kGo : TemplateLanguage::kJinja,
                                       go_source ? std::string_view(*go_source) : *own)
            ->capabilities();
    // Some models have a template of its own for tools.
    if (!go_source && file.find_string("tokenizer.chat_template.tool_use")) found.tools = true;
    return found;
  } catch (const templates::Error&) {
    return {};  // told where the template is used; here it only adds no capability
  }
}

}  // namespace

ModelInfo read_model_info(const gguf::GgufFile& file) {
  ModelInfo info;
  info.family = file.architecture();
  info.families = {info.family};
  for (const gguf::TensorInfo& tensor : file.tensors())
    info.n_parameters += tensor.n_elems();
  info.parameter_size = format_parameter_count(info.n_parameters);
  info.quantization_level = quantization_label(file);
  const auto length = [&](const char* key) {
    const uint64_t value = file.find_uint(info.family + key).value_or(0);
    return static_cast<int64_t>(std::min<uint64_t>(value, INT32_MAX));
  };
  info.context_length = length(".context_length");
  info.embedding_length = length(".embedding_length");
  return info;
}

registry::ModelConfig to_config(const ModelInfo& info) {
  registry::ModelConfig config;
  config.model_format = info.format;
  config.model_family = info.family;
  config.model_families = info.families;
  config.model_type = info.parameter_size;
  config.file_type = info.quantization_level;
  config.context_length = info.context_length;
  config.embedding_length = info.embedding_length;
  return config;
}

std::vector<std::string> read_capabilities(const gguf::GgufFile& file,
                                           const std::optional<std::string>& go_template,
                                           bool has_projector) {
  const bool embeds = file.find(std::string(file.architecture()) + ".pooling_type") != nullptr;
  std::vector<std::string> capabilities = {embeds ? "embedding" : "completion"};
  const templates::TemplateCapabilities found = template_capabilities(file, go_template);
  if (found.tools) capabilities.push_back("tools");
  if (found.insert) capabilities.push_back("insert");
  if (found.thinking) capabilities.push_back("thinking");
  if (has_projector) capabilities.push_back("vision");
  return capabilities;
}

std::string quantization_label(const gguf::GgufFile& file) {
  if (const gguf::Value* value = file.find("general.file_type")) {
    uint64_t number = UINT64_MAX;
    if (const auto* u = std::get_if<uint64_t>(&value->data)) number = *u;
    if (const auto* i = std::get_if<int64_t>(&value->data)) number = static_cast<uint64_t>(*i);
    if (const auto name = file_type_name(number); !name.empty()) return std::string(name);
  }
  std::map<gguf::DType, int64_t> size_bytes;
  for (const gguf::TensorInfo& tensor : file.tensors())
    size_bytes[tensor.dtype] += tensor.size_bytes;
  const auto largest =
      std::max_element(size_bytes.begin(), size_bytes.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  return largest == size_bytes.end() ? std::string()
                                     : std::string(gguf::dtype_info(largest->first).name);
}

std::string_view file_type_name(uint64_t file_type) {
  const uint64_t plain = file_type & ~kGuessedFileType;
  return plain < kFileTypes.size() ? kFileTypes[plain] : std::string_view();
}

std::string format_parameter_count(int64_t n) {
  const auto value = static_cast<double>(n);
  const auto scaled = [&](double unit, const char* exact, const char* rounded) {
    const double number = value / unit;
    return format(number == std::floor(number) ? exact : rounded, number);
  };
  if (n >= 1'000'000'000) return scaled(1e9, "%.0fB", "%.1fB");
  if (n >= 1'000'000) return scaled(1e6, "%.0fM", "%.2fM");
  if (n >= 1'000) return scaled(1e3, "%.0fK", "%.0fK");
  return std::to_string(n);
}

std::string format_size(int64_t size_bytes) {
  if (size_bytes < 1000) return std::to_string(size_bytes) + " B";
  constexpr std::array<const char*, 4> kUnits{" KB", " MB", " GB", " TB"};
  double value = static_cast<double>(size_bytes) / 1000;
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  // Ollama cuts above ten and rounds to a tenth below.
  const bool whole = value >= 10 || value == std::floor(value);
  return format(whole ? "%.0f" : "%.1f", whole ? std::floor(value) : value) + kUnits[unit];
}

std::string format_relative_time(std::chrono::seconds ago) {
  const int64_t seconds = ago.count();
  return seconds < 0 ? duration_words(-seconds) + " from now" : duration_words(seconds) + " ago";
}

std::string format_time(std::chrono::system_clock::time_point time) {
  using std::chrono::floor;
  const auto seconds = floor<std::chrono::seconds>(time);
  const auto nanoseconds =
      std::chrono::duration_cast<std::chrono::nanoseconds>(time - seconds).count();
  const std::time_t unix_time = std::chrono::system_clock::to_time_t(seconds);
  std::tm parts{};
  ::gmtime_r(&unix_time, &parts);
  std::array<char, 64> text{};
  const size_t used = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  std::snprintf(text.data() + used, text.size() - used, ".%09lldZ",
                static_cast<long long>(nanoseconds));
  return text.data();
}

std::string format_parameters(std::string_view parameters_json) {
  constexpr size_t kNameColumns = 30;
  const Json parameters = Json::parse(parameters_json, nullptr, /*allow_exceptions=*/false);
  std::string text;
  if (!parameters.is_object()) return text;
  const auto add = [&](std::string name, const Json& value) {
    name.resize(std::max(name.size(), kNameColumns), ' ');
    text += (text.empty() ? "" : "\n") + name + " " + parameter_text(value);
  };
  for (const auto& [name, value] : parameters.items()) {
    if (!value.is_array()) {
      add(name, value);
      continue;
    }
    for (const Json& element : value)
      add(name, element);
  }
  return text;
}

std::string format_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] - row[i].size() + 4, ' ');
    }
    text += "\n";
  }
  return text;
}

}  // namespace dsctl::commands
