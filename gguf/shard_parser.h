// Reads the header, metadata and tensor infos of one GGUF file and checks every field of them
// against the file's length before it is believed. Internal to gguf/: use GgufFile.
#pragma once

#include <cstdint>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf/mapped_file.h"

namespace dsctl::gguf {

/// What one file holds. Strings and data point into the mapping it was parsed from.
struct ParsedShard {
  uint32_t version = 0;
  std::vector<KeyValue> metadata;
  std::vector<TensorInfo> tensors;  // shard_idx is left 0
};

/// Parses `file`. Throws Error naming the file, the field and what was expected. Keys and tensor
/// names are not yet known to be unique.
ParsedShard parse_shard(const MappedFile& file);

}  // namespace dsctl::gguf
