#include "commands/model_file.h"

#include <filesystem>

#include "commands/error.h"
#include "registry/model_name.h"
#include "registry/registry.h"

namespace dsctl::commands {
namespace {

bool is_file(const std::string& model) {
  std::error_code error;
  return model.ends_with(".gguf") ||
         (model.find('/') != std::string::npos && std::filesystem::is_regular_file(model, error));
}

}  // namespace

gguf::GgufFile open_model_file(const Settings& settings, const std::string& model) {
  if (is_file(model)) return gguf::GgufFile::open(model);
  const auto name = registry::ModelName::parse(model);
  const auto stored = registry::Registry(settings.models_dir).find(name);
  if (!stored) throw Error("model '" + model + "' not found");
  return gguf::GgufFile::open_shards(stored->weight_paths);
}

}  // namespace dsctl::commands
