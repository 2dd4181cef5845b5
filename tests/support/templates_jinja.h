// Short ways to render in tests.
#pragma once

#include <ctime>
#include <filesystem>
#include <string>
#include <string_view>

#include "templates/message.h"

namespace dsctl::tests {

templates::Json read_json(const std::filesystem::path& path);
std::string read_text(const std::filesystem::path& path);

/// 2024-07-26 12:00:00, a Friday: the time of all golden renders.
std::tm fixed_clock();

/// The text of a Jinja template.
std::string render(std::string_view source,
                   const templates::Json& variables = templates::Json::object());
/// The message of the error that it must throw; "no error" otherwise.
std::string render_error(std::string_view source,
                         const templates::Json& variables = templates::Json::object());

/// Does the message end with this, letter case and a final period aside?
bool ends_like(std::string message, std::string end);

}  // namespace dsctl::tests
