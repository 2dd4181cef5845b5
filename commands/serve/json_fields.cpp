#include "commands/serve/json_fields.h"

#include <cmath>
#include <utility>

namespace dsctl::commands::serve {
namespace {

// Deeper than any honest request; bounds recursion in whoever walks the value.
constexpr int kMaxDepth = 64;

std::string format_bound(double value) {
  std::string text = std::to_string(value);
  text.erase(text.find_last_not_of('0') + 1);
  if (text.back() == '.') text.pop_back();
  return text;
}

}  // namespace

Json parse_body(std::string_view body) {
  if (body.find_first_not_of(" \t\r\n") == std::string_view::npos) {
    throw ApiError(400, "missing request body");
  }
  try {
    return Json::parse(body, [](int depth, Json::parse_event_t, Json&) {
      if (depth > kMaxDepth) {
        throw ApiError(400, "invalid JSON: nested deeper than " + std::to_string(kMaxDepth));
      }
      return true;
    });
  } catch (const Json::parse_error& error) {
    std::string what = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 3: syntax error ..."
    if (const size_t bracket = what.find("] "); bracket != std::string::npos) {
      what.erase(0, bracket + 2);
    }
    throw ApiError(400, "invalid JSON: " + what);
  } catch (const Json::exception& error) {
    throw ApiError(400, std::string("invalid JSON: ") + error.what());
  }
}

std::string_view json_kind(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return "an array";
    case Json::value_t::string:
      return "a string";
    case Json::value_t::boolean:
      return "a boolean";
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned:
    case Json::value_t::number_float:
      return "a number";
    case Json::value_t::binary:
    case Json::value_t::discarded:
      break;
  }
  return "something else";
}

Fields::Fields(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
  if (object.is_object()) return;
  const std::string where = path_.empty() ? "request body" : "field \"" + path_ + "\"";
  throw ApiError(400, where + ": expected an object, found " + std::string(json_kind(object)),
                 path_);
}

std::string Fields::path_of(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

void Fields::fail(std::string_view name, std::string_view expected, const Json& found) const {
  std::string shown(json_kind(found));
  if (found.is_number()) shown = found.dump();
  throw ApiError(
      400,
      "field \"" + path_of(name) + "\": expected " + std::string(expected) + ", found " + shown,
      path_of(name));
}

const Json* Fields::any(std::string_view name) const {
  const auto it = object_.find(name);
  return it == object_.end() || it->is_null() ? nullptr : &*it;
}

std::optional<std::string> Fields::text(std::string_view name) const {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  if (!value->is_string()) fail(name, "a string", *value);
  return value->get<std::string>();
}

std::string Fields::required_text(std::string_view name) const {
  auto value = text(name);
  if (!value || value->empty()) {
    throw ApiError(400, "field \"" + path_of(name) + "\" is missing: expected a string",
                   path_of(name));
  }
  return *std::move(value);
}

std::optional<bool> Fields::flag(std::string_view name) const {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) fail(name, "true or false", *value);
  return value->get<bool>();
}

std::optional<int64_t> Fields::integer(std::string_view name, int64_t min, int64_t max) const {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  const std::string expected =
      "a whole number from " + std::to_string(min) + " to " + std::to_string(max);
  if (!value->is_number()) fail(name, expected, *value);
  const double real = value->get<double>();
  if (real != std::floor(real) || real < static_cast<double>(min) ||
      real > static_cast<double>(max)) {
    fail(name, expected, *value);
  }
  return value->is_number_float() ? static_cast<int64_t>(real) : value->get<int64_t>();
}

std::optional<double> Fields::number(std::string_view name, double min, double max) const {
  const Json* value = any(name);
  if (!value) return std::nullopt;
  const std::string expected = "a number from " + format_bound(min) + " to " + format_bound(max);
  if (!value->is_number()) fail(name, expected, *value);
  const double real = value->get<double>();
  if (!(real >= min && real <= max)) fail(name, expected, *value);
  return real;
}

const Json* Fields::array(std::string_view name) const {
  const Json* value = any(name);
  if (value && !value->is_array()) fail(name, "an array", *value);
  return value;
}

const Json* Fields::object(std::string_view name) const {
  const Json* value = any(name);
  if (value && !value->is_object()) fail(name, "an object", *value);
  return value;
}

void Fields::refuse(std::initializer_list<std::string_view> names) const {
  for (const std::string_view name : names) {
    const Json* value = any(name);
    if (!value || (value->is_structured() && value->empty())) continue;
    if (value->is_string() && value->get_ref<const std::string&>().empty()) continue;
    throw ApiError(400, "field \"" + path_of(name) + "\" is not supported yet", path_of(name),
                   "unsupported_parameter");
  }
}

std::string dump(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace dsctl::commands::serve
