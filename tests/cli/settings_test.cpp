// Where the store is: which of the environment and config.yaml counts.
#include <cstdlib>
#include <fstream>
#include <map>
#include <optional>

#include "cli/options.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::cli {
namespace {

namespace fs = std::filesystem;

/// Variables that have another value while the object lives.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& variables) {
    for (const char* name : {"DSCTL_MODELS", "OLLAMA_MODELS", "DSCTL_CONFIG", "XDG_DATA_HOME",
                             "XDG_CONFIG_HOME", "HOME", "DSCTL_KV_CACHE_DTYPE"}) {
      const char* old = std::getenv(name);
      old_[name] = old ? std::optional<std::string>(old) : std::nullopt;
      ::unsetenv(name);
    }
    for (const auto& [name, value] : variables)
      ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const auto& [name, value] : old_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }

 private:
  std::map<std::string, std::optional<std::string>> old_;
};

fs::path models_dir(const std::map<std::string, std::string>& variables) {
  const Environment environment(variables);
  return default_settings().models_dir;
}

TEST_CASE("The store is the first of DSCTL_MODELS, config.yaml, OLLAMA_MODELS and our own") {
  const tests::TempDir home;
  const std::string dir = home.path().string();
  std::ofstream(home.path() / "config.yaml") << "models: /from/config\n";
  std::ofstream(home.path() / "other.yaml") << "port: 1\n";
  const std::string with_models = dir + "/config.yaml";
  const std::string without_models = dir + "/other.yaml";
  CHECK(models_dir({{"HOME", dir}}) == home.path() / ".local/share/dsctl/models");
  CHECK(models_dir({{"HOME", dir}, {"OLLAMA_MODELS", "/ollama"}}) == "/ollama");
  CHECK(
      models_dir({{"HOME", dir}, {"OLLAMA_MODELS", "/ollama"}, {"DSCTL_CONFIG", without_models}}) ==
      "/ollama");
  CHECK(models_dir({{"HOME", dir}, {"OLLAMA_MODELS", "/ollama"}, {"DSCTL_CONFIG", with_models}}) ==
        "/from/config");
  CHECK(models_dir({{"HOME", dir},
                    {"OLLAMA_MODELS", "/ollama"},
                    {"DSCTL_CONFIG", with_models},
                    {"DSCTL_MODELS", "/own"}}) == "/own");
}

TEST_CASE("The type of the key and value cache comes from the environment or config.yaml") {
  const tests::TempDir home;
  const std::string dir = home.path().string();
  std::ofstream(home.path() / "config.yaml") << "kv_cache_dtype: f32\n";
  const auto type = [&](std::map<std::string, std::string> variables) {
    variables["HOME"] = dir;
    const Environment environment(variables);
    return default_settings().kv_cache_dtype;
  };
  CHECK(type({}) == "auto");
  CHECK(type({{"DSCTL_CONFIG", dir + "/config.yaml"}}) == "f32");
  CHECK(type({{"DSCTL_CONFIG", dir + "/config.yaml"}, {"DSCTL_KV_CACHE_DTYPE", "f16"}}) == "f16");
}

TEST_CASE("OLLAMA_MODELS is read as Ollama reads it: without blanks and quotes") {
  const tests::TempDir home;
  const std::string dir = home.path().string();
  CHECK(models_dir({{"HOME", dir}, {"OLLAMA_MODELS", "  \"/my models\" "}}) == "/my models");
  CHECK(models_dir({{"HOME", dir}, {"OLLAMA_MODELS", "'/x'"}}) == "/x");
  CHECK(models_dir({{"HOME", dir}, {"OLLAMA_MODELS", " "}}) ==
        home.path() / ".local/share/dsctl/models");
}

TEST_CASE("A config file that can't be looked at is an error that names it") {
  const tests::TempDir home;
  const std::string too_long = home.path().string() + "/" + std::string(5000, 'x');
  CHECK_THROWS_WITH(models_dir({{"HOME", home.path().string()}, {"DSCTL_CONFIG", too_long}}),
                    Catch::Contains("can't be looked at"));
  CHECK_THROWS_WITH(
      models_dir({{"HOME", home.path().string()}, {"DSCTL_CONFIG", home.path() / "none"}}),
      Catch::Contains("no such file"));
}

}  // namespace
}  // namespace dsctl::cli
