// `dsctl version`: what this program is and what it found on the machine.
#pragma once

#include <string>

#include "commands/console.h"

namespace dsctl::commands {

struct VersionOptions {
  /// Also the processor, the CUDA library and its devices, or why there is none.
  bool verbose = false;
};

/// "dsctl 0.1.0".
std::string version_text();

/// Prints the version. Returns the exit code.
int version(const VersionOptions& options, Console& console);

}  // namespace dsctl::commands
