// JSON files of a checkpoint, read with limits. Internal to gguf/convert: the JSON library is
// heavy.
#pragma once

#include <cstddef>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace dsctl::gguf::convert {

using Json = nlohmann::json;

/// A file of at most `max_bytes`; nothing when there is no such file. Throws Error naming it when
/// it is larger or can't be read.
std::optional<std::string> read_text(const std::filesystem::path& path, size_t max_bytes);

/// The same as JSON; what the file holds must be an object. Throws Error with the place of a
/// syntax error.
std::optional<Json> read_json(const std::filesystem::path& path, size_t max_bytes);

/// The member `key` of `object`; null when it is missing, is `null`, or `object` is no object.
const Json* member(const Json& object, std::string_view key);

/// The same when it is of that type.
const Json* object_member(const Json& object, std::string_view key);
const Json* array_member(const Json& object, std::string_view key);
std::optional<std::string> string_member(const Json& object, std::string_view key);
std::optional<bool> bool_member(const Json& object, std::string_view key);

constexpr size_t kMaxConfigBytes = 16U << 20;
constexpr size_t kMaxIndexBytes = 64U << 20;
constexpr size_t kMaxTokenizerBytes = 256U << 20;

}  // namespace dsctl::gguf::convert
