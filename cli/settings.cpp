// Settings from the environment and config.yaml.
#include <yaml-cpp/yaml.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "cli/options.h"
#include "commands/error.h"

namespace dsctl::cli {
namespace {

namespace fs = std::filesystem;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value ? value : "";
}

fs::path home_dir(const char* xdg_variable, const char* below_home) {
  if (const std::string xdg = environment(xdg_variable); !xdg.empty()) return xdg;
  const std::string home = environment("HOME");
  return fs::path(home.empty() ? "/var/lib/dsctl" : home) / below_home;
}

int parse_int(const std::string& text, const std::string& where) {
  size_t used = 0;
  int value = 0;
  try {
    value = std::stoi(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size()) {
    throw commands::Error(where + ": \"" + text + "\", expected a whole number");
  }
  return value;
}

void set_host(commands::Settings& settings, std::string value, const std::string& where) {
  if (const size_t scheme = value.find("://"); scheme != std::string::npos) {
    value = value.substr(scheme + 3);
  }
  while (!value.empty() && value.back() == '/')
    value.pop_back();
  const size_t colon = value.rfind(':');
  const bool bare_ipv6 = value.find(':') != colon && value.find(']') == std::string::npos;
  if (colon != std::string::npos && !bare_ipv6 && value.back() != ']') {
    settings.port = parse_int(value.substr(colon + 1), where + ": port");
    if (settings.port < 0 || settings.port > 65535) {
      throw commands::Error(where + ": port " + std::to_string(settings.port) +
                            ", expected 0 to 65535");
    }
    value = value.substr(0, colon);
  }
  if (value.size() > 2 && value.front() == '[' && value.back() == ']') {
    value = value.substr(1, value.size() - 2);
  }
  if (!value.empty()) settings.host = value;
}

void apply(commands::Settings& settings, const std::string& key, const std::string& value,
           const std::string& where) {
  if (key == "models") {
    settings.models_dir = value;
  } else if (key == "host") {
    set_host(settings, value, where);
  } else if (key == "port") {
    settings.port = parse_int(value, where);
  } else if (key == "keep_alive") {
    settings.keep_alive = value;
  } else if (key == "max_loaded_models") {
    settings.max_loaded_models = parse_int(value, where);
  } else if (key == "num_parallel") {
    settings.num_parallel = parse_int(value, where);
  } else if (key == "context_length") {
    settings.context_length = parse_int(value, where);
  } else if (key == "threads") {
    settings.n_threads = parse_int(value, where);
  } else if (key == "kv_cache_dtype") {
    settings.kv_cache_dtype = value;
  } else {
    throw commands::Error(
        where +
        ": unknown key; expected one of models, host, port, keep_alive, "
        "max_loaded_models, num_parallel, context_length, threads, kv_cache_dtype");
  }
}

void apply_config_file(commands::Settings& settings, const fs::path& path) {
  std::error_code error;
  const bool is_there = fs::exists(path, error);
  if (error) throw commands::Error(path.string() + ": can't be looked at: " + error.message());
  if (!is_there) return;
  YAML::Node root;
  try {
    root = YAML::LoadFile(path.string());
    if (root.IsNull()) return;
    if (!root.IsMap()) throw commands::Error(path.string() + ": expected a map of settings");
    for (const auto& entry : root) {
      const std::string key = entry.first.as<std::string>();
      const std::string where =
          path.string() + ":" + std::to_string(entry.first.Mark().line + 1) + ": " + key;
      if (!entry.second.IsScalar()) throw commands::Error(where + ": expected one value");
      apply(settings, key, entry.second.as<std::string>(), where);
    }
  } catch (const YAML::Exception& bad_yaml) {
    throw commands::Error(path.string() + ": " + bad_yaml.what());
  }
}

/// The store that Ollama is told to use, as it reads the variable: without blanks and quotes.
std::string ollama_models() {
  std::string value = environment("OLLAMA_MODELS");
  const auto strip = [&value](const char* characters) {
    value.erase(0, value.find_first_not_of(characters));
    value.erase(value.find_last_not_of(characters) + 1);
  };
  strip(" \t\r\n");
  strip("\"'");
  return value;
}

}  // namespace

commands::Settings default_settings() {
  commands::Settings settings;
  settings.models_dir = home_dir("XDG_DATA_HOME", ".local/share") / "dsctl" / "models";
  // Before config.yaml: what is said to this program outweighs what is said to another.
  if (const std::string models = ollama_models(); !models.empty()) settings.models_dir = models;
  const std::string config = environment("DSCTL_CONFIG");
  std::error_code error;
  if (!config.empty() && !fs::exists(config, error) && !error) {
    throw commands::Error("DSCTL_CONFIG: " + config + ": no such file");
  }
  apply_config_file(settings, config.empty()
                                  ? home_dir("XDG_CONFIG_HOME", ".config") / "dsctl" / "config.yaml"
                                  : fs::path(config));
  for (const auto& [variable, key] : {std::pair{"DSCTL_MODELS", "models"},
                                      {"DSCTL_HOST", "host"},
                                      {"DSCTL_PORT", "port"},
                                      {"DSCTL_KEEP_ALIVE", "keep_alive"},
                                      {"DSCTL_MAX_LOADED_MODELS", "max_loaded_models"},
                                      {"DSCTL_NUM_PARALLEL", "num_parallel"},
                                      {"DSCTL_CONTEXT_LENGTH", "context_length"},
                                      {"DSCTL_THREADS", "threads"},
                                      {"DSCTL_KV_CACHE_DTYPE", "kv_cache_dtype"}}) {
    if (const std::string value = environment(variable); !value.empty()) {
      apply(settings, key, value, variable);
    }
  }
  return settings;
}

}  // namespace dsctl::cli
