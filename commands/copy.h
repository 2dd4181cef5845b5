// `dsctl cp`: a second name for a model; no weights are copied.
#pragma once

#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct CopyOptions {
  std::string source;
  std::string destination;
};

/// Returns the exit code; throws registry::Error when there is no source.
int copy(const Settings& settings, const CopyOptions& options, Console& console);

}  // namespace dsctl::commands
