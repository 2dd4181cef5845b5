// template_render: renders Jinja templates for comparison with another implementation.
// Reads lines {"template": ..., "variables": {...}}, writes lines {"output": ...} or
// {"error": kind, "message": ...}. The clock stands at 2024-07-26 12:00:00.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "templates/jinja/template.h"

namespace {

using dsctl::templates::Json;
using dsctl::templates::jinja::ErrorKind;

std::tm fixed_clock() {
  std::tm time{};
  time.tm_year = 124;
  time.tm_mon = 6;
  time.tm_mday = 26;
  time.tm_hour = 12;
  time.tm_wday = 5;
  time.tm_yday = 207;
  return time;
}

std::string kind_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kSyntax:
      return "syntax";
    case ErrorKind::kType:
      return "type";
    case ErrorKind::kValue:
      return "value";
    case ErrorKind::kUndefined:
      return "undefined";
    case ErrorKind::kSecurity:
      return "security";
    case ErrorKind::kLimit:
      return "limit";
  }
  return "";
}

Json answer(const std::string& line) {
  Json result = Json::object();
  try {
    const Json request = Json::parse(line);
    dsctl::templates::jinja::RenderOptions options;
    options.local_time = fixed_clock;
    const dsctl::templates::jinja::Template parsed(request["template"].get<std::string>());
    result["output"] = parsed.render(request["variables"], options);
  } catch (const dsctl::templates::jinja::JinjaError& error) {
    result["error"] = kind_name(error.kind());
    result["message"] = error.what();
  } catch (const dsctl::templates::RaisedError& error) {
    result["error"] = "raised";
    result["message"] = error.what();
  }
  return result;
}

}  // namespace

int main() {
  std::ios::sync_with_stdio(false);
  for (std::string line; std::getline(std::cin, line);) {
    std::cout << answer(line).dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
  }
  return 0;
}
