#include "gguf/convert/json_file.h"

#include <fstream>

#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {

namespace fs = std::filesystem;

std::optional<std::string> read_text(const fs::path& path, size_t max_bytes) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return std::nullopt;
  if (!fs::is_regular_file(status)) throw Error(path.string() + ": is no regular file");
  const auto size = fs::file_size(path, error);
  if (error) throw Error(path.string() + ": " + error.message());
  if (size > max_bytes) {
    throw Error(path.string() + ": " + std::to_string(size) + " bytes, expected at most " +
                std::to_string(max_bytes));
  }
  std::ifstream file(path, std::ios::binary);
  std::string text(static_cast<size_t>(size), '\0');
  if (!file.read(text.data(), static_cast<std::streamsize>(text.size()))) {
    throw Error(path.string() + ": can't read the file");
  }
  return text;
}

std::optional<Json> read_json(const fs::path& path, size_t max_bytes) {
  const auto text = read_text(path, max_bytes);
  if (!text) return std::nullopt;
  try {
    Json json = Json::parse(*text);
    if (!json.is_object()) throw Error(path.string() + ": expected a JSON object");
    return json;
  } catch (const Json::exception& error) {
    throw Error(path.string() + ": no valid JSON: " + printable(error.what(), 200));
  }
}

const Json* member(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

const Json* object_member(const Json& object, std::string_view key) {
  const Json* value = member(object, key);
  return value && value->is_object() ? value : nullptr;
}

const Json* array_member(const Json& object, std::string_view key) {
  const Json* value = member(object, key);
  return value && value->is_array() ? value : nullptr;
}

std::optional<std::string> string_member(const Json& object, std::string_view key) {
  const Json* value = member(object, key);
  if (!value || !value->is_string()) return std::nullopt;
  return value->get<std::string>();
}

std::optional<bool> bool_member(const Json& object, std::string_view key) {
  const Json* value = member(object, key);
  if (!value || !value->is_boolean()) return std::nullopt;
  return value->get<bool>();
}

}  // namespace dsctl::gguf::convert
