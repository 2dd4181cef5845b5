// Splitting a model into shards: the same files that llama-gguf-split --split writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "gguf/merge.h"

namespace dsctl::gguf {

/// Where a shard ends.
struct SplitRule {
  // A shard is closed before the tensor that would make its tensors, each with its padding, larger
  // than `max_size_bytes`; a larger tensor gets a shard of its own. Or, if this is 0,
  int64_t max_size_bytes = 0;
  int n_tensors = 0;  // after so many.
  SplitOptions::FirstShard first_shard = SplitOptions::FirstShard::WithTensors;
};

/// One shard before it is written: tensors [begin, end) of the model.
struct PlannedShard {
  std::filesystem::path path;
  size_t begin = 0;
  size_t end = 0;
  GgufLayout layout;
};

/// The shards of `model` under `rule`, named `<prefix>-NNNNN-of-NNNNN.gguf`; `prefix` may have
/// directories. The first has the model's metadata; each has split.no, split.tensors.count and
/// split.count. Throws Error when they would be more than names can count.
std::vector<PlannedShard> plan_split(const GgufFile& model, const std::filesystem::path& prefix,
                                     const SplitRule& rule);

/// Writes them. They appear when all are whole and on disk, the first one last: who sees it sees
/// them all. Throws Error and leaves nothing when it can't.
CopyCounts write_split(const GgufFile& model, const std::vector<PlannedShard>& shards,
                       const MergeOptions& options);

}  // namespace dsctl::gguf
