// Merging in place: each shard is given back to the file system as soon as its data is safe in the
// merged file, so that 404 GB fit in 404 GB and one shard. A kill or a power loss at any moment
// loses nothing; the same call goes on where the last one was.
//
// Order of writes. Beside OUT lie OUT.dsctl-merge, which becomes OUT, and its journal.
//   1. The journal is made and locked; OUT.dsctl-merge gets its header and its full length; both
//      are synced; the journal's first line says what is to be done, and is synced.
//   2. For each shard, in one step or in several: its data is copied, OUT.dsctl-merge is synced,
//      a line in the journal says so and is synced, and only then are the step's bytes of the
//      shard freed: the whole shard is removed, or the bytes are punched out of it.
//   3. OUT.dsctl-merge is renamed to OUT, and the journal is removed.
// What the journal says is thus always on disk, and what it does not say is still in the shards.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "gguf/merge.h"

namespace dsctl::gguf {

/// How a merge in place would go, known before it begins.
struct InPlacePlan {
  int64_t needed_bytes = 0;  // that must be free now
  int64_t free_bytes = 0;    // on the file system of the merged file
  int64_t step_bytes = 0;    // copied before they are freed; 0: whole shards
};

/// Checks that the shards of `model` can be given up: none has another name (a hard link: the bytes
/// would be lost to it, or not freed), is a symbolic link, has bytes after its tensors, or can't be
/// removed. Throws Error saying which and why, or that not even small steps fit.
InPlacePlan plan_in_place(const GgufFile& model, const std::filesystem::path& out);

/// Merges the shards of `model` into `out` and removes them. `model` is taken: its mappings would
/// keep the shards' bytes on disk. Throws Error; when some shards are gone by then, it says that
/// the same call finishes the work, else nothing is left behind.
CopyCounts merge_in_place(GgufFile model, const std::filesystem::path& out,
                          const MergeOptions& options);

/// True when a merge in place to `out` was begun and not finished.
bool has_unfinished_merge(const std::filesystem::path& out);

/// Finishes it: needs only the journal and the shards that are left. Throws Error.
CopyCounts resume_in_place(const std::filesystem::path& out, const MergeOptions& options);

}  // namespace dsctl::gguf
