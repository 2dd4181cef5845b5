// `dsctl split`: one file, or a split model, to shards.
#pragma once

#include <cstdint>
#include <filesystem>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct SplitOptions {
  std::filesystem::path file;  // a model file, any shard of a split, or the name of a stored model
  std::filesystem::path prefix;  // of the new files; a directory gets files named after `file`
  int64_t max_size_bytes = 0;    // of the tensors of a shard; or, if 0,
  int max_tensors = 0;           // their number
  bool no_tensor_first_split = false;  // the first shard has the metadata only
  bool verify = false;                 // read both sides again and compare
  bool force = false;                  // replace shards that are there
  bool dry_run = false;                // say what would be done
  bool json = false;
};

/// Splits, and prints the shards. JSON: {"shards": [{"path", "size", "tensors"}], ...}. Returns the
/// exit code; throws Error or gguf::Error.
int split(const Settings& settings, const SplitOptions& options, Console& console);

}  // namespace dsctl::commands
