// `dsctl ps`: the models that a server holds in memory.
#pragma once

#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct PsOptions {
  std::string prefix;  // only names that begin with it, without case
  bool json = false;
};

/// Prints the loaded models. Returns the exit code. Throws Error when no server answers.
int ps(const PsOptions& options, const Settings& settings, Console& console);

}  // namespace dsctl::commands
