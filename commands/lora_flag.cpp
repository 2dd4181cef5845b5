#include "commands/lora_flag.h"

#include <charconv>
#include <cmath>
#include <filesystem>

#include "commands/error.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;

bool is_file(const std::string& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

engine::LoraAdapter parse_lora(const std::string& flag) {
  const size_t equals = flag.rfind('=');
  if (is_file(flag) || equals == std::string::npos) {
    if (!is_file(flag)) throw Error("--lora " + flag + ": no such file");
    return {.path = fs::absolute(flag).string()};
  }
  const std::string path = flag.substr(0, equals);
  const std::string text = flag.substr(equals + 1);
  float scale = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), scale);
  if (result.ec != std::errc() || result.ptr != text.data() + text.size() ||
      !std::isfinite(scale)) {
    throw Error("--lora " + flag + ": scale \"" + text + "\", expected a number");
  }
  if (!is_file(path)) throw Error("--lora " + path + ": no such file");
  return {.path = fs::absolute(path).string(), .scale = scale};
}

}  // namespace

std::vector<engine::LoraAdapter> parse_loras(const std::vector<std::string>& flags) {
  std::vector<engine::LoraAdapter> adapters;
  for (const std::string& flag : flags)
    adapters.push_back(parse_lora(flag));
  return adapters;
}

}  // namespace dsctl::commands
