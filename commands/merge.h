// `dsctl merge`: the shards of a split model to one file.
#pragma once

#include <filesystem>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct MergeOptions {
  // Any one shard, several, a directory, a pattern, or the name of a stored model.
  std::vector<std::filesystem::path> shards;
  std::filesystem::path out;  // a file, or a directory that gets a file named after the shards
  bool in_place = false;      // each shard is removed when its data is safe in `out`
  bool verify = false;        // read both sides again and compare
  bool force = false;         // replace `out`
  bool dry_run = false;       // say what would be done
  bool json = false;
};

/// Merges, and prints what was made; or goes on with a merge in place that was interrupted, even
/// when its first shards are gone. JSON: {"out", "size", "tensors", "shards", ...}. Returns the
/// exit code; throws Error or gguf::Error.
int merge(const Settings& settings, const MergeOptions& options, Console& console);

}  // namespace dsctl::commands
