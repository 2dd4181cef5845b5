// Names of the shards of a split model: `<prefix>-00001-of-00003.gguf`.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace dsctl::gguf {

/// A shard's file name taken apart.
struct ShardName {
  std::string prefix;  // "DeepSeek-R1-Q4_K_M"
  int shard_idx = 0;   // 0-based; the name counts from 1
  int n_shards = 0;
};

/// Takes the file name of a shard apart; nothing when `file_name` is not of that form.
std::optional<ShardName> parse_shard_name(std::string_view file_name);

/// The file name of a shard, the inverse of parse_shard_name.
std::string shard_file_name(const ShardName& name);

}  // namespace dsctl::gguf
