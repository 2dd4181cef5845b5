// Merging the shards of a split model into one file: the same bytes that llama-gguf-split --merge
// writes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "gguf/data_copy.h"
#include "gguf/gguf_file.h"
#include "gguf/new_file.h"

namespace dsctl::gguf {

/// A stretch of tensor data that keeps its bytes and changes its place.
struct Segment {
  int64_t in_offset_bytes = 0;   // in the shard
  int64_t out_offset_bytes = 0;  // in the merged file
  int64_t size_bytes = 0;

  bool operator==(const Segment&) const = default;
};

/// The merged file before it is written.
struct MergeLayout {
  std::string header;                          // all before the first tensor's data
  int64_t size_bytes = 0;                      // of the whole file
  std::vector<std::vector<Segment>> segments;  // of each shard, in order; they touch no other
};

/// How the shards of `model` become one file. The metadata is the first shard's, with split.count 0
/// as its last entry, which tells loaders that nothing follows; split.no and split.tensors.count
/// stay, as llama-gguf-split leaves them. Throws Error when `model` is no split model.
MergeLayout merge_layout(const GgufFile& model);

enum class Verify { kNo, kYes };

struct MergeOptions {
  IfExists if_exists = IfExists::kFail;
  Verify verify = Verify::kNo;  // read both sides again and compare, before the file gets its name
  Progress progress = nullptr;
  // In place only: bytes after which those copied are freed; 0: whole shards while there is room.
  int64_t max_step_bytes = 0;
};

/// Writes the shards of `model` as one file `out`, which appears when it is whole and on disk; the
/// shards are only read. Throws Error and leaves nothing when it can't.
CopyCounts merge(const GgufFile& model, const std::filesystem::path& out,
                 const MergeOptions& options);

}  // namespace dsctl::gguf
