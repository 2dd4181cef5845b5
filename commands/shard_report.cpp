#include "commands/shard_report.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "commands/duration.h"
#include "commands/error.h"
#include "commands/model_info.h"
#include "gguf/printable.h"
#include "gguf/shard_set.h"
#include "registry/registry.h"

namespace dsctl::commands {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

gguf::GgufFile open_model_files(const Settings& settings, const std::vector<fs::path>& inputs) {
  std::error_code error;
  if (inputs.size() == 1 && !fs::exists(inputs[0], error)) {
    const auto name = registry::ModelName::try_parse(inputs[0].string());
    const registry::Registry registry(settings.models_dir);
    const auto stored = name ? registry.find(*name) : std::nullopt;
    if (stored && !stored->weight_paths.empty()) {
      return gguf::GgufFile::open_shards(stored->weight_paths);
    }
  }
  return gguf::open_shard_set(inputs);
}

std::string format_shards(const std::vector<ShardLine>& shards) {
  std::vector<std::vector<std::string>> rows = {{"SHARD", "TENSORS", "SIZE"}};
  for (const ShardLine& shard : shards) {
    rows.push_back({shard.path.filename().string(), std::to_string(shard.n_tensors),
                    gguf::printable_size(shard.size_bytes)});
  }
  return format_table(rows);
}

Json shards_json(const std::vector<ShardLine>& shards) {
  Json list = Json::array();
  for (const ShardLine& shard : shards) {
    Json item;
    item["path"] = shard.path.string();
    item["size"] = shard.size_bytes;
    item["tensors"] = shard.n_tensors;
    list.push_back(std::move(item));
  }
  return list;
}

std::string format_count(size_t count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

std::string format_exact(int64_t number) {
  std::string digits = std::to_string(number);
  for (auto at = static_cast<ptrdiff_t>(digits.size()) - 3; at > 0; at -= 3)
    digits.insert(static_cast<size_t>(at), ",");
  return digits;
}

std::string format_room(int64_t needed_bytes, int64_t free_bytes) {
  std::string text = gguf::printable_size(free_bytes) + " free there";
  if (needed_bytes > free_bytes) {
    text += ", not enough: " + gguf::printable_size(needed_bytes - free_bytes) + " are missing";
  }
  return text;
}

std::string format_speed(int64_t size_bytes, std::chrono::nanoseconds time) {
  const double seconds = std::chrono::duration<double>(time).count();
  const auto rounded = std::chrono::milliseconds(std::llround(seconds * 1000));
  std::string text = gguf::printable_size(size_bytes) + " in " + format_duration(rounded);
  if (seconds >= 0.001) {
    const double rate = static_cast<double>(size_bytes) / seconds;
    text += ", " + gguf::printable_size(static_cast<int64_t>(rate)) + "/s";
  }
  return text;
}

gguf::Progress show_progress(Console& console) {
  return [&console](std::string_view what, int64_t done, int64_t total) {
    if (console.interrupted()) throw Error("interrupted");
    console.progress(what, done, total);
  };
}

}  // namespace dsctl::commands
