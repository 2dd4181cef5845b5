// `dsctl list`: the models on this machine.
#pragma once

#include <string>

#include "commands/console.h"
#include "commands/settings.h"
#include "registry/registry.h"

namespace dsctl::commands {

struct ListOptions {
  std::string prefix;  // only names that begin so, in any case; empty: all
  bool json = false;
};

/// Prints NAME, ID, SIZE and MODIFIED, newest first, or the object of Ollama's /api/tags. Manifests
/// that can't be read are noted, and the rest is listed. Returns the exit code.
int list(const Settings& settings, const ListOptions& options, Console& console);

/// The object of Ollama's /api/tags: {"models":[{name, model, modified_at, size, digest,
/// details}]}.
std::string list_json(const registry::ModelList& models);

}  // namespace dsctl::commands
