// `dsctl rm`: removes models, and the blobs that no other model uses.
#pragma once

#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct RemoveOptions {
  std::vector<std::string> names;
  bool json = false;
};

/// Removes every name that exists, also after one that does not. Returns the exit code: 1 when a
/// name was not found. JSON: {"deleted":[names], "not_found":[names], "freed_bytes":n}.
int remove(const Settings& settings, const RemoveOptions& options, Console& console);

}  // namespace dsctl::commands
