#include "commands/split.h"

#include <chrono>
#include <nlohmann/json.hpp>
#include <vector>

#include "commands/error.h"
#include "commands/shard_report.h"
#include "gguf/new_file.h"
#include "gguf/printable.h"
#include "gguf/split.h"
#include "gguf/split_model.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using gguf::printable_size;

/// The prefix of the new files' names: as given, less an ending ".gguf"; in a directory after the
/// model's own name.
fs::path resolve_prefix(const SplitOptions& options) {
  std::error_code error;
  fs::path prefix = options.prefix;
  if (fs::is_directory(prefix, error)) {
    const std::string name = options.file.filename().string();
    const auto shard = gguf::parse_shard_name(name);
    prefix /= shard ? shard->prefix : name;
  }
  if (prefix.extension() == ".gguf") prefix.replace_extension();
  if (prefix.filename().empty()) {
    throw Error(options.prefix.string() + ": expected the beginning of file names");
  }
  return prefix;
}

std::vector<ShardLine> lines_of(const std::vector<gguf::PlannedShard>& shards) {
  std::vector<ShardLine> lines;
  for (const gguf::PlannedShard& shard : shards) {
    lines.push_back(
        {shard.path, static_cast<int64_t>(shard.end - shard.begin), shard.layout.size_bytes});
  }
  return lines;
}

}  // namespace

int split(const Settings& settings, const SplitOptions& options, Console& console) {
  const gguf::GgufFile model = open_model_files(settings, {options.file});
  using FirstShard = gguf::SplitOptions::FirstShard;
  const gguf::SplitRule rule{
      options.max_size_bytes, options.max_tensors,
      options.no_tensor_first_split ? FirstShard::MetadataOnly : FirstShard::WithTensors};
  const std::vector<gguf::PlannedShard> shards =
      gguf::plan_split(model, resolve_prefix(options), rule);
  const std::vector<ShardLine> lines = lines_of(shards);
  int64_t size_bytes = 0;
  for (const ShardLine& line : lines)
    size_bytes += line.size_bytes;
  const fs::path directory = shards.front().path.parent_path();
  const int64_t free = gguf::free_bytes(directory);
  Json json;
  json["shards"] = shards_json(lines);
  json["size"] = size_bytes;
  json["tensors"] = model.tensors().size();
  std::string text = format_shards(lines) + "\n" + format_count(lines.size(), "shard") + " in " +
                     (directory.empty() ? "." : directory.string()) + ", ";
  if (options.dry_run) {
    json["free"] = free;
    json["fits"] = size_bytes <= free;
    text += printable_size(size_bytes) + "; " + format_room(size_bytes, free);
  } else {
    const auto start = std::chrono::steady_clock::now();
    const gguf::CopyCounts counts = gguf::write_split(
        model, shards,
        {.if_exists = options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail,
         .verify = options.verify ? gguf::Verify::kYes : gguf::Verify::kNo,
         .progress = show_progress(console)});
    console.finish_progress();
    const auto time = std::chrono::steady_clock::now() - start;
    json["seconds"] = std::chrono::duration<double>(time).count();
    json["shared"] = counts.shared;
    json["copied"] = counts.kernel + counts.through;
    json["verified"] = options.verify;
    text += format_speed(size_bytes, time);
    if (options.verify) text += ", every byte compared";
  }
  console.print((options.json ? json.dump(-1, ' ', false, Json::error_handler_t::replace) : text) +
                "\n");
  return 0;
}

}  // namespace dsctl::commands
