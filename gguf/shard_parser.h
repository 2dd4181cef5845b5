// Reads the header, metadata and tensor infos of one GGUF file and checks every field of them
// against the file's length before it is believed. Internal to gguf/: use GgufFile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
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

/// How many of the first bytes of a file of `file_size` bytes must be known to parse it: at most
/// prefix.size() when `prefix` has the whole header, else a lower bound, larger than that, with
/// which to ask again. Throws Error as parse_shard does as soon as it is clear that the header is
/// broken. `path` is for messages.
int64_t header_bytes_needed(const std::filesystem::path& path, std::span<const std::byte> prefix,
                            int64_t file_size);

}  // namespace dsctl::gguf
