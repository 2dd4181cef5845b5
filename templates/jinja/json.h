// Between JSON and template values: the caller's messages in, the tojson filter out.
#pragma once

#include <optional>
#include <string>

#include "templates/jinja/budget.h"
#include "templates/jinja/value.h"
#include "templates/message.h"

namespace dsctl::templates::jinja {

/// Throws a kLimit error when the JSON is nested too deeply.
Value from_json(const Json& json, Budget& budget);

/// The options of Python's json.dumps.
struct JsonStyle {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // of one level; absent: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};

/// json.dumps(value). Throws a kType error for what JSON can't hold.
std::string to_json(const Value& value, const JsonStyle& style, Budget& budget);

}  // namespace dsctl::templates::jinja
