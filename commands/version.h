// `dsctl version`: what this program is and what it found on the machine.
#pragma once

#include "commands/console.h"

namespace dsctl::commands {

struct VersionOptions {
  bool verbose =
      false;  // also the processor, the CUDA library and its devices, or why there is none
};

/// Prints the version. Returns the exit code.
int version(const VersionOptions& options, Console& console);

}  // namespace dsctl::commands
