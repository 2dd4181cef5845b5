// Reading JSON of servers: fields by name and type, with errors that say which field is wrong. For
// the .cpp files of this folder only: the JSON library is heavy to compile.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "registry/digest.h"

namespace dsctl::registry {

using Json = nlohmann::json;

/// Parses a document; `what` names it in errors ("answer of https://..."). Throws Error.
Json parse_json(std::string_view text, const std::string& what);

/// A field that is missing or null is absent. Each throws Error naming `what` and the field when it
/// has another type.
std::optional<std::string> json_text(const Json& object, const char* key, const std::string& what);
std::optional<bool> json_flag(const Json& object, const char* key, const std::string& what);
const Json* json_array(const Json& object, const char* key, const std::string& what);
const Json* json_object(const Json& object, const char* key, const std::string& what);

/// A file's size: a whole number from 0 to kMaxRemoteFileBytes.
std::optional<int64_t> json_size(const Json& object, const char* key, const std::string& what);

/// A SHA-256 of 64 hexadecimal digits, without prefix; empty text is absent.
std::optional<Digest> json_sha256(const Json& object, const char* key, const std::string& what);

/// Throws Error unless `value` is an object.
void require_object(const Json& value, const std::string& what);

}  // namespace dsctl::registry
