#include "registry/sources/json_reader.h"

#include "registry/error.h"
#include "registry/sources/remote_path.h"
#include "registry/sources/source.h"

namespace dsctl::registry {
namespace {

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

[[noreturn]] void fail(const std::string& what, const char* key, const std::string& expected) {
  throw Error(what + ": " + key + ": expected " + expected);
}

}  // namespace

Json parse_json(std::string_view text, const std::string& what) {
  Json root = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!root.is_discarded()) return root;
  throw Error(what + ": is no JSON, it begins with \"" + printable_text(text.substr(0, 60)) + "\"");
}

void require_object(const Json& value, const std::string& what) {
  if (!value.is_object()) throw Error(what + ": expected a JSON object");
}

std::optional<std::string> json_text(const Json& object, const char* key, const std::string& what) {
  const Json* value = find(object, key);
  if (!value) return std::nullopt;
  if (!value->is_string()) fail(what, key, "a string");
  return value->get<std::string>();
}

std::optional<bool> json_flag(const Json& object, const char* key, const std::string& what) {
  const Json* value = find(object, key);
  if (!value) return std::nullopt;
  if (!value->is_boolean()) fail(what, key, "true or false");
  return value->get<bool>();
}

const Json* json_array(const Json& object, const char* key, const std::string& what) {
  const Json* value = find(object, key);
  if (value && !value->is_array()) fail(what, key, "a list");
  return value;
}

const Json* json_object(const Json& object, const char* key, const std::string& what) {
  const Json* value = find(object, key);
  if (value && !value->is_object()) fail(what, key, "an object");
  return value;
}

std::optional<int64_t> json_size(const Json& object, const char* key, const std::string& what) {
  const Json* value = find(object, key);
  if (!value) return std::nullopt;
  const bool is_unsigned = value->is_number_unsigned();
  const bool fits =
      (is_unsigned && value->get<uint64_t>() <= static_cast<uint64_t>(kMaxRemoteFileBytes)) ||
      (!is_unsigned && value->is_number_integer() && value->get<int64_t>() >= 0 &&
       value->get<int64_t>() <= kMaxRemoteFileBytes);
  if (!fits)
    fail(what, key,
         "a file's size, found " +
             printable_text(value->dump(-1, ' ', true, Json::error_handler_t::replace)));
  return value->get<int64_t>();
}

std::optional<Digest> json_sha256(const Json& object, const char* key, const std::string& what) {
  const std::optional<std::string> text = json_text(object, key, what);
  if (!text || text->empty()) return std::nullopt;
  const std::optional<Digest> digest = Digest::parse("sha256:" + *text);
  if (!digest) {
    fail(what, key, "64 hexadecimal digits, found \"" + printable_text(*text) + "\"");
  }
  return digest;
}

}  // namespace dsctl::registry
