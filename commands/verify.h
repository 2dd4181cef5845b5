// `dsctl verify`: reads the blobs of models again and tells which are damaged.
#pragma once

#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct VerifyOptions {
  std::vector<std::string> names;  // empty: every blob of the store
  bool remove = false;             // damaged blobs, so that a pull brings them again
  int n_threads = 0;               // 0: one for each core
  bool json = false;
};

/// Returns 0 when all is sound, else 1 with a line for each bad blob and the models that use it.
/// JSON: {"models", "blobs", "bytes", "seconds", "bytes_per_second", "bad": [{"digest", "problem",
/// "models", "removed"}], "problems"}.
int verify(const Settings& settings, const VerifyOptions& options, Console& console);

}  // namespace dsctl::commands
