// The table of parameters and the check of one value against it.
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "registry/error.h"
#include "registry/modelfile.h"

namespace dsctl::registry {
namespace {

using Json = nlohmann::json;

constexpr auto kInt = ParameterType::kInt;
constexpr auto kFloat = ParameterType::kFloat;
constexpr auto kBool = ParameterType::kBool;

template <typename T>
std::optional<T> parse_number(std::string_view text) {
  if (text.starts_with('+')) text.remove_prefix(1);
  T value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

// The words that Go's ParseBool knows.
std::optional<bool> parse_bool(std::string_view text) {
  for (const std::string_view word : {"1", "t", "T", "true", "TRUE", "True"}) {
    if (text == word) return true;
  }
  for (const std::string_view word : {"0", "f", "F", "false", "FALSE", "False"}) {
    if (text == word) return false;
  }
  return std::nullopt;
}

std::string known_names() {
  std::string names;
  for (const ParameterInfo& info : parameter_table()) {
    if (info.deprecated) continue;
    names += (names.empty() ? "" : ", ") + std::string(info.name);
  }
  return names;
}

std::string quoted(std::string_view value) {
  constexpr size_t kShown = 60;
  return "\"" + std::string(value.substr(0, kShown)) + (value.size() > kShown ? "..." : "") + "\"";
}

}  // namespace

const std::vector<ParameterInfo>& parameter_table() {
  static const std::vector<ParameterInfo> table = {
      {"num_ctx", kInt},
      {"num_batch", kInt},
      {"num_gpu", kInt},
      {"main_gpu", kInt},
      {"use_mmap", kBool},
      {"num_thread", kInt},
      {"draft_num_predict", kInt},
      {"num_keep", kInt},
      {"seed", kInt},
      {"num_predict", kInt},
      {"temperature", kFloat},
      {"top_k", kInt},
      {"top_p", kFloat},
      {"min_p", kFloat},
      {"typical_p", kFloat},
      {"repeat_last_n", kInt},
      {"repeat_penalty", kFloat},
      {"presence_penalty", kFloat},
      {"frequency_penalty", kFloat},
      {"stop", ParameterType::kStringList},
      {"penalize_newline", kBool, true},
      {"low_vram", kBool, true},
      {"f16_kv", kBool, true},
      {"logits_all", kBool, true},
      {"vocab_only", kBool, true},
      {"use_mlock", kBool, true},
      {"mirostat", kInt, true},
      {"mirostat_tau", kFloat, true},
      {"mirostat_eta", kFloat, true},
      {"tfs_z", kFloat, true},
      {"numa", kBool, true},
  };
  return table;
}

const ParameterInfo* find_parameter(std::string_view name) {
  for (const ParameterInfo& info : parameter_table()) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

std::string parameter_to_json(std::string_view name, std::string_view value) {
  const ParameterInfo* info = find_parameter(name);
  if (!info) {
    throw Error("unknown parameter '" + std::string(name) + "', expected one of " + known_names());
  }
  const auto refuse = [&](std::string_view expected) {
    throw Error(std::string(name) + ": " + quoted(value) + ", expected " + std::string(expected));
  };
  switch (info->type) {
    case ParameterType::kInt: {
      const auto number = parse_number<int64_t>(value);
      if (!number) refuse("a whole number");
      return Json(*number).dump();
    }
    case ParameterType::kFloat: {
      const auto number = parse_number<double>(value);
      if (!number || !std::isfinite(*number)) refuse("a number");
      return Json(*number).dump();
    }
    case ParameterType::kBool: {
      const auto flag = parse_bool(value);
      if (!flag) refuse("true or false");
      return Json(*flag).dump();
    }
    case ParameterType::kString:
      return Json(value).dump(-1, ' ', false, Json::error_handler_t::replace);
    case ParameterType::kStringList:
      return Json::array({std::string(value)}).dump(-1, ' ', false, Json::error_handler_t::replace);
  }
  return "null";
}

}  // namespace dsctl::registry
