#include "commands/serve/registry_source.h"

#include "commands/error.h"
#include "commands/serve/api_error.h"
#include "commands/serve/engine_process.h"
#include "registry/error.h"

namespace dsctl::commands::serve {

std::optional<ModelId> RegistrySource::find(const std::string& name) {
  const auto parsed = registry::ModelName::try_parse(name);
  if (!parsed) throw ApiError(400, "invalid model name \"" + name + "\"", "model");
  const auto stored = registry_.find(*parsed);
  if (!stored) return std::nullopt;
  return ModelId{.name = stored->name.short_form(), .digest = stored->digest.hex()};
}

std::shared_ptr<const LoadedModel> RegistrySource::load(const ModelId& id) {
  const auto stored = registry_.find(registry::ModelName::parse(id.name));
  if (!stored) throw ApiError(404, "model '" + id.name + "' not found", "model");
  return load_model(*stored);
}

std::unique_ptr<engine::Engine> RegistrySource::start_engine(const LoadedModel& model,
                                                             const engine::EngineOptions& options) {
  std::vector<std::string> paths;
  for (const auto& path : model.weight_paths)
    paths.push_back(path.string());
  return std::make_unique<EngineProcess>(spawn_engine_child(program_), paths, options);
}

}  // namespace dsctl::commands::serve
