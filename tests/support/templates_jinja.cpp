#include "tests/support/templates_jinja.h"

#include <algorithm>
#include <cctype>
#include <fstream>
#include <sstream>

#include "templates/jinja/template.h"

namespace dsctl::tests {

templates::Json read_json(const std::filesystem::path& path) {
  return templates::Json::parse(read_text(path));
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read " + path.string());
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::tm fixed_clock() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 12;
  time.tm_wday = 5;
  time.tm_yday = 207;
  time.tm_isdst = 0;
  return time;
}

std::string render(std::string_view source, const templates::Json& variables) {
  templates::jinja::RenderOptions options;
  options.local_time = fixed_clock;
  return templates::jinja::Template(source).render(variables, options);
}

std::string render_error(std::string_view source, const templates::Json& variables) {
  try {
    render(source, variables);
  } catch (const templates::Error& error) {
    return error.what();
  }
  return "no error";
}

bool ends_like(std::string message, std::string end) {
  const auto plain = [](std::string& text) {
    if (text.ends_with('.')) text.pop_back();
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  };
  plain(message);
  plain(end);
  return message.ends_with(end);
}

}  // namespace dsctl::tests
