// `dsctl prune`: gives back the space of what no model needs.
#pragma once

#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct PruneOptions {
  bool dry_run = false;
  std::string older_than;  // a Go duration; empty: an hour for blobs, a week for partial downloads
  bool json = false;
};

/// Removes blobs that no manifest names, abandoned downloads and imports, and empty directories of
/// manifests. JSON: {"dry_run", "freed_bytes", "removed": [{"kind", "path", "freed_bytes"}],
/// "notes"}. Returns the exit code.
int prune(const Settings& settings, const PruneOptions& options, Console& console);

}  // namespace dsctl::commands
