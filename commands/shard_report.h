// What `merge` and `split` have in common: which model is meant, and what is told about shards.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"
#include "gguf/data_copy.h"
#include "gguf/gguf_file.h"

namespace dsctl::commands {

/// Opens what `inputs` name: shards, or one stored model. Throws gguf::Error.
gguf::GgufFile open_model_files(const Settings& settings,
                                const std::vector<std::filesystem::path>& inputs);

/// One line of the table of shards.
struct ShardLine {
  std::filesystem::path path;
  int64_t n_tensors = 0;
  int64_t size_bytes = 0;
};

/// A table: SHARD, TENSORS, SIZE.
std::string format_shards(const std::vector<ShardLine>& shards);

/// The shards as a JSON array of {"path", "size", "tensors"}.
nlohmann::ordered_json shards_json(const std::vector<ShardLine>& shards);

/// "1 shard", "9 shards".
std::string format_count(size_t count, const std::string& noun);

/// Digits in groups of three: "404,430,188,544".
std::string format_exact(int64_t number);

/// "16.0 GB free there", and what is missing.
std::string format_room(int64_t needed_bytes, int64_t free_bytes);

/// "404 GB in 7m12s, 936 MB/s".
std::string format_speed(int64_t size_bytes, std::chrono::nanoseconds time);

/// Shows the progress and throws Error once Ctrl-C was pressed.
gguf::Progress show_progress(Console& console);

}  // namespace dsctl::commands
