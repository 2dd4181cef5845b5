// RegistrySource: the server's models, from the registry, each with its engine in a child process.
#pragma once

#include <memory>
#include <string>

#include "commands/serve/model_host.h"
#include "registry/registry.h"

namespace dsctl::commands::serve {

class RegistrySource final : public ModelSource {
 public:
  /// `program` is started for engines; `registry` must outlive this.
  RegistrySource(const registry::Registry& registry, std::string program)
      : registry_(registry), program_(std::move(program)) {}

  std::optional<ModelId> find(const std::string& name) override;
  std::shared_ptr<const LoadedModel> load(const ModelId& id) override;
  std::unique_ptr<engine::Engine> start_engine(const LoadedModel& model,
                                               const engine::EngineOptions& options) override;

 private:
  const registry::Registry& registry_;
  const std::string program_;
};

}  // namespace dsctl::commands::serve
