// `dsctl pull`: a model from a hub, a git-LFS repository or an Ollama registry.
#pragma once

#include <cstdint>

#include "commands/console.h"
#include "commands/pull_plan.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct PullOptions {
  PullRequest request;
  int jobs = 8;
  int64_t limit_bytes_per_second = 0;  // 0: no limit
  bool dry_run = false;                // stop before the first byte
  bool json = false;                   // one JSON object a line: plan, progress, done
  bool quiet = false;                  // nothing but errors
};

/// Says what it will do, does it, and says what came of it. Where a choice is needed, lists what
/// there is. Returns the exit code; throws the Error of the part that failed.
int pull(const Settings& settings, const PullOptions& options, Console& console);

/// "10M", "1.5G", "500k", "1000" (bytes; decimal units, or KiB, MiB, GiB) as a number. Throws
/// Error.
int64_t parse_rate(std::string_view text);

}  // namespace dsctl::commands
