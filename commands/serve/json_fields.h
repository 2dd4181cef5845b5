// Reading a request's JSON: every field by name and type, with errors that say which field, what
// was found and what was expected. The only place where JSON of clients is trusted less than types.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "commands/serve/api_error.h"

namespace dsctl::commands::serve {

using Json = nlohmann::ordered_json;

/// Parses a body. Throws ApiError 400: "missing request body", or what is wrong at which byte.
Json parse_body(std::string_view body);

/// A name for messages: "a string", "an array", "null".
std::string_view json_kind(const Json& value);

/// The fields of one JSON object. A field that is missing or null is absent. Every function throws
/// ApiError 400 naming the field when it has another type or is out of range.
class Fields {
 public:
  /// `object` must outlive this; `path` is put before names: "messages[0]".
  explicit Fields(const Json& object, std::string path = "");

  std::optional<std::string> text(std::string_view name) const;
  std::string required_text(std::string_view name) const;
  std::optional<bool> flag(std::string_view name) const;
  std::optional<int64_t> integer(std::string_view name, int64_t min, int64_t max) const;
  std::optional<double> number(std::string_view name, double min, double max) const;
  const Json* array(std::string_view name) const;
  const Json* object(std::string_view name) const;
  const Json* any(std::string_view name) const;

  /// Throws when the field is there with something in it: "x is not supported yet".
  void refuse(std::initializer_list<std::string_view> names) const;

  std::string path_of(std::string_view name) const;
  [[noreturn]] void fail(std::string_view name, std::string_view expected, const Json& found) const;

 private:
  const Json& object_;
  std::string path_;
};

/// A line of a stream or a body. Text that is not valid UTF-8 is replaced, never an error.
std::string dump(const Json& value);

}  // namespace dsctl::commands::serve
