#include "commands/serve/option_fields.h"

#include <spdlog/spdlog.h>

#include "commands/error.h"

namespace dsctl::commands::serve {
namespace {

OptionValue to_option(const std::string& name, const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number_integer()) return value.get<int64_t>();
  if (value.is_number()) return value.get<double>();
  // Ollama refuses a single text here; it can only mean a list of one.
  if (value.is_string()) return std::vector<std::string>{value.get<std::string>()};
  if (value.is_array()) {
    std::vector<std::string> texts;
    for (const Json& item : value) {
      if (!item.is_string()) {
        throw ApiError(400, "option \"" + name + "\" must be of type array of strings",
                       "options." + name);
      }
      texts.push_back(item.get<std::string>());
    }
    return texts;
  }
  throw ApiError(400, "option \"" + name + "\": found " + std::string(json_kind(value)),
                 "options." + name);
}

}  // namespace

Options parse_options(const Fields& fields) {
  Options options;
  const Json* object = fields.object("options");
  if (!object) return options;
  for (const auto& [name, value] : object->items()) {
    if (value.is_null()) continue;
    const OptionInfo* info = find_option(name);
    if (!info) {
      throw ApiError(400, "option \"" + name + "\" is unknown", "options." + name);
    }
    if (info->scope == OptionScope::kIgnored) {
      spdlog::warn("option \"{}\" has no effect: {}", name, info->help);
      continue;
    }
    try {
      options[name] = check_option(name, to_option(name, value));
    } catch (const Error& error) {
      throw ApiError(400, error.what(), "options." + name);
    }
  }
  return options;
}

std::optional<KeepAlive> parse_keep_alive_field(const Fields& fields) {
  const Json* value = fields.any("keep_alive");
  if (!value) return std::nullopt;
  if (value->is_number()) return keep_alive_from_seconds(value->get<double>());
  if (!value->is_string()) fields.fail("keep_alive", "a number of seconds or a duration", *value);
  try {
    return parse_keep_alive(value->get<std::string>(), BareNumber::kRefused);
  } catch (const Error& error) {
    throw ApiError(400, std::string("field \"keep_alive\": ") + error.what(), "keep_alive");
  }
}

}  // namespace dsctl::commands::serve
