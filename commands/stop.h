// `dsctl stop`: takes a model out of a server's memory.
#pragma once

#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

/// Unloads `model` once its requests have ended. Returns the exit code. Throws Error when no server
/// answers, or it has no such model.
int stop(const std::string& model, const Settings& settings, Console& console);

}  // namespace dsctl::commands
