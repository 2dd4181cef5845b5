#include "gguf/convert/hf_config.h"

#include <cmath>
#include <limits>

#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

[[noreturn]] void fail(std::string_view key, const std::string& message) {
  throw Error("config.json: " + printable(key) + ": " + message);
}

}  // namespace

HfConfig HfConfig::open(const std::filesystem::path& dir) {
  std::error_code error;
  if (!std::filesystem::is_directory(dir, error)) {
    throw Error(dir.string() + ": is no directory; expected one with config.json and safetensors");
  }
  auto json = read_json(dir / "config.json", kMaxConfigBytes);
  if (!json) throw Error(dir.string() + ": has no config.json, so it is no checkpoint");
  return HfConfig(std::move(*json));
}

HfConfig::HfConfig(Json json) : json_(std::move(json)) {
  const auto first_class = [](const Json& object) {
    const Json* names = array_member(object, "architectures");
    if (!names || names->empty() || !names->front().is_string()) return std::string();
    return names->front().get<std::string>();
  };
  class_name_ = first_class(json_);
  if (const Json* text = object_member(json_, "text_config")) {
    const std::string name = first_class(*text);
    if (!name.empty()) class_name_ = name;
    const Json copy = *text;
    json_.update(copy);
  }
  if (class_name_.empty()) fail("architectures", "missing, expected the name of a model class");
}

void HfConfig::set_default(std::string_view key, Json value) {
  if (!member(json_, key)) json_[std::string(key)] = std::move(value);
}

std::optional<uint32_t> HfConfig::find_uint(std::string_view key) const {
  const Json* value = member(json_, key);
  if (!value) return std::nullopt;
  const bool whole =
      value->is_number_unsigned() || (value->is_number_float() && value->get<double>() >= 0 &&
                                      std::trunc(value->get<double>()) == value->get<double>());
  const double number = whole ? value->get<double>() : -1;
  if (number < 0 || number > std::numeric_limits<int32_t>::max()) {
    fail(key, printable(value->dump(), 40) + ", expected a whole number");
  }
  return static_cast<uint32_t>(number);
}

uint32_t HfConfig::get_uint(std::string_view key) const {
  const auto value = find_uint(key);
  if (!value) fail(key, "missing");
  return *value;
}

std::optional<double> number_member(const Json& object, std::string_view key,
                                    std::string_view name) {
  const Json* value = member(object, key);
  if (!value) return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    fail(name, printable(value->dump(), 40) + ", expected a number");
  }
  return value->get<double>();
}

std::optional<double> HfConfig::find_number(std::string_view key) const {
  return number_member(json_, key, key);
}

double HfConfig::get_number(std::string_view key) const {
  const auto value = find_number(key);
  if (!value) fail(key, "missing");
  return *value;
}

std::optional<bool> HfConfig::find_bool(std::string_view key) const {
  const Json* value = member(json_, key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) fail(key, printable(value->dump(), 40) + ", expected true or false");
  return value->get<bool>();
}

std::optional<std::string> HfConfig::find_string(std::string_view key) const {
  const Json* value = member(json_, key);
  if (!value) return std::nullopt;
  if (!value->is_string()) fail(key, printable(value->dump(), 40) + ", expected a string");
  return value->get<std::string>();
}

RopeParameters read_rope(const HfConfig& config) {
  RopeParameters rope;
  const Json* values = object_member(config.json(), "rope_parameters");
  if (!values) values = object_member(config.json(), "rope_scaling");
  if (values) rope.values = *values;
  if (const Json* local = object_member(rope.values, "sliding_attention")) {
    rope.local_theta = number_member(*local, "rope_theta", "rope_parameters.sliding_attention");
  }
  if (const Json* full = object_member(rope.values, "full_attention")) {
    const Json copy = *full;
    rope.values = copy;
  }
  rope.theta = number_member(rope.values, "rope_theta", "rope_parameters.rope_theta");
  if (!rope.theta) rope.theta = config.find_number("rope_theta");
  if (!rope.local_theta) rope.local_theta = config.find_number("rope_local_base_freq");
  for (const char* key : {"type", "rope_type"}) {
    if (const auto type = string_member(rope.values, key)) rope.type = *type;
  }
  // Beside the object in old files.
  if (!member(rope.values, "original_max_position_embeddings")) {
    const Json* original = member(config.json(), "original_max_position_embeddings");
    if (original) rope.values["original_max_position_embeddings"] = *original;
  }
  return rope;
}

}  // namespace dsctl::gguf::convert
