// Help for tests of the commands that keep models: a store, small model files, a recorded console.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "commands/settings.h"
#include "gguf/gguf_writer.h"
#include "registry/registry.h"
#include "tests/support/paths.h"
#include "tests/support/recording_console.h"

namespace dsctl::tests {

/// Metadata and a few tensors of a model that is large enough to be cut into nine shards.
gguf::GgufWriter small_model(std::string_view architecture = "llama");

/// A directory with files of the user and, in it, an empty store.
struct ModelStore {
  TempDir dir;
  commands::Settings settings{.models_dir = dir.path() / "models"};
  RecordingConsole console;

  registry::Registry registry() const { return registry::Registry(settings.models_dir); }
  std::filesystem::path write(const std::string& name, const std::string& content) const;
  std::filesystem::path write_model(const std::string& name) const;
  /// Runs `create NAME` with this Modelfile, written into the directory; returns what was printed.
  std::string create(const std::string& name, const std::string& modelfile);
};

}  // namespace dsctl::tests
