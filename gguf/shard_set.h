// Finds the shards that a person means: any one of them, several, their directory or a pattern.
#pragma once

#include <filesystem>
#include <vector>

#include "gguf/gguf_file.h"

namespace dsctl::gguf {

/// Opens the one model that `inputs` name. Each is a shard (or a whole model), a directory that
/// holds the shards of one model, or a pattern with *, ? or [...]. One shard stands for all beside
/// it; shards in several directories or under other names are all given, in any order. Throws Error
/// naming what is missing, given twice or of another model, and what to do where files are Git-LFS
/// pointers.
GgufFile open_shard_set(const std::vector<std::filesystem::path>& inputs);

}  // namespace dsctl::gguf
