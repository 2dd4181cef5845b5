#include "commands/merge.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "commands/error.h"
#include "commands/shard_report.h"
#include "gguf/error.h"
#include "gguf/merge.h"
#include "gguf/merge_in_place.h"
#include "gguf/new_file.h"
#include "gguf/printable.h"
#include "gguf/split.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;
using gguf::printable_size;

/// The file to write: `out`, what it links to, or a file in it when it is a directory.
fs::path resolve_out(const MergeOptions& options) {
  std::error_code error;
  fs::path out = options.out;
  if (fs::is_directory(out, error)) {
    const auto name = gguf::parse_shard_name(options.shards.front().filename().string());
    if (!name) throw Error(out.string() + ": is a directory, expected the name of a file to write");
    out /= name->prefix + ".gguf";
  }
  // The target may not be there yet, so the system can't resolve it for us.
  constexpr int kMaxLinks = 40;
  for (int n_links = 0; fs::is_symlink(out, error); ++n_links) {
    const fs::path target = fs::read_symlink(out, error);
    if (error || n_links == kMaxLinks) {
      throw Error(options.out.string() + ": its symbolic link can't be followed");
    }
    out = out.parent_path() / target;
  }
  return out;
}

/// What is about to be merged, counted before it may go away.
struct Summary {
  std::vector<ShardLine> shards;
  int64_t n_tensors = 0;
  int64_t size_bytes = 0;  // of the merged file
};

Summary summarize(const gguf::GgufFile& model) {
  Summary summary;
  for (const gguf::MappedFile& shard : model.shards())
    summary.shards.push_back({shard.path(), 0, static_cast<int64_t>(shard.bytes().size())});
  for (const gguf::TensorInfo& tensor : model.tensors())
    ++summary.shards[static_cast<size_t>(tensor.shard_idx)].n_tensors;
  summary.n_tensors = static_cast<int64_t>(model.tensors().size());
  summary.size_bytes = gguf::merge_layout(model).size_bytes;
  return summary;
}

Json summary_json(const Summary& summary, const fs::path& out) {
  Json json;
  json["out"] = out.string();
  json["size"] = summary.size_bytes;
  json["tensors"] = summary.n_tensors;
  json["shards"] = shards_json(summary.shards);
  return json;
}

void print_json(Console& console, const Json& json) {
  console.print(json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
}

/// Throws when shards are blobs of the store: a model would lose them.
void check_not_stored(const Settings& settings, const gguf::GgufFile& model) {
  std::error_code error;
  const fs::path store = fs::weakly_canonical(settings.models_dir, error);
  for (const gguf::MappedFile& shard : model.shards()) {
    const fs::path path = fs::weakly_canonical(shard.path(), error);
    const auto [end, ignored] = std::mismatch(store.begin(), store.end(), path.begin(), path.end());
    if (store.empty() || end != store.end()) continue;
    throw Error(shard.path().string() +
                ": belongs to a stored model, which merging in place would destroy: merge without "
                "--in-place, then rm the model");
  }
}

int print_plan(const MergeOptions& options, const gguf::GgufFile& model, const Summary& summary,
               const fs::path& out, Console& console) {
  int64_t needed = summary.size_bytes;
  const int64_t free = gguf::free_bytes(out.parent_path());
  std::optional<gguf::InPlacePlan> in_place;
  try {
    in_place = gguf::plan_in_place(model, out);
  } catch (const gguf::Error&) {
    if (options.in_place) throw;
  }
  if (options.in_place) needed = in_place->needed_bytes;
  if (options.json) {
    Json json = summary_json(summary, out);
    json["needed"] = needed;
    json["free"] = free;
    json["fits"] = needed <= free;
    json["in_place"] = options.in_place;
    print_json(console, json);
    return 0;
  }
  std::string text = format_shards(summary.shards) + "\n";
  text += std::to_string(summary.shards.size()) + " shards, " + std::to_string(summary.n_tensors) +
          " tensors -> " + out.string() + ", " + printable_size(summary.size_bytes) + " (" +
          format_exact(summary.size_bytes) + " bytes)\n";
  text += "needs " + printable_size(needed) + (options.in_place ? " at a time" : "") + "; " +
          format_room(needed, free) + "\n";
  if (!options.in_place && needed > free && in_place) {
    text += "--in-place would do with " + printable_size(in_place->needed_bytes) +
            " and remove the shards as it goes\n";
  }
  console.print(text);
  return 0;
}

void print_result(const MergeOptions& options, const Summary& summary, const fs::path& out,
                  const gguf::CopyCounts& counts, std::chrono::nanoseconds time, Console& console) {
  if (options.json) {
    Json json = summary_json(summary, out);
    json["seconds"] = std::chrono::duration<double>(time).count();
    json["shared"] = counts.shared;
    json["copied"] = counts.kernel + counts.through;
    json["verified"] = options.verify;
    print_json(console, json);
    return;
  }
  std::string text = out.string() + ": " +
                     format_count(static_cast<size_t>(summary.n_tensors), "tensor") + " of " +
                     format_count(summary.shards.size(), "shard") + ", " +
                     format_speed(summary.size_bytes, time);
  if (counts.shared > 0) text += ", " + printable_size(counts.shared) + " shared with the shards";
  if (options.verify) text += ", every byte compared";
  console.print(text + "\n");
}

/// Does `work`, and says how to go on when it is interrupted with shards gone.
template <typename Work>
auto in_place(const fs::path& out, const Work& work) {
  try {
    return work();
  } catch (const Error& error) {
    if (!gguf::has_unfinished_merge(out)) throw;
    throw Error(std::string(error.what()) +
                "; nothing is lost: run the same command again to finish");
  }
}

int resume(const MergeOptions& options, const fs::path& out, Console& console) {
  if (!options.in_place) {
    throw Error(out.string() +
                ": a merge in place to it was interrupted and may hold the only copy of some "
                "shards: run the command with --in-place to finish it");
  }
  if (options.dry_run) {
    console.print(out.string() + ": a merge in place was interrupted and would be finished\n");
    return 0;
  }
  console.note("finishing the merge in place to " + out.string() + " that was interrupted");
  const gguf::MergeOptions how{
      .if_exists = options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail,
      .verify = options.verify ? gguf::Verify::kYes : gguf::Verify::kNo,
      .progress = show_progress(console)};
  const auto start = std::chrono::steady_clock::now();
  const gguf::CopyCounts counts = in_place(out, [&] { return gguf::resume_in_place(out, how); });
  console.finish_progress();
  const gguf::GgufFile merged = gguf::GgufFile::open(out);
  const Summary summary{{}, static_cast<int64_t>(merged.tensors().size()), merged.size_bytes()};
  const auto time = std::chrono::steady_clock::now() - start;
  if (options.json) {
    print_result(options, summary, out, counts, time, console);
  } else {
    console.print(out.string() + ": finished, " + std::to_string(summary.n_tensors) + " tensors, " +
                  printable_size(summary.size_bytes) + "\n");
  }
  return 0;
}

}  // namespace

int merge(const Settings& settings, const MergeOptions& options, Console& console) {
  const fs::path out = resolve_out(options);
  if (gguf::has_unfinished_merge(out)) return resume(options, out, console);
  gguf::GgufFile model = open_model_files(settings, options.shards);
  const Summary summary = summarize(model);
  const gguf::MergeOptions how{
      .if_exists = options.force ? gguf::IfExists::kReplace : gguf::IfExists::kFail,
      .verify = options.verify ? gguf::Verify::kYes : gguf::Verify::kNo,
      .progress = show_progress(console)};
  if (options.in_place) check_not_stored(settings, model);
  if (options.dry_run) {
    std::vector<fs::path> shards;
    for (const ShardLine& shard : summary.shards)
      shards.push_back(shard.path);
    gguf::check_out(out, shards, how.if_exists);
    return print_plan(options, model, summary, out, console);
  }
  const auto start = std::chrono::steady_clock::now();
  gguf::CopyCounts counts;
  if (options.in_place) {
    console.note("in place: each of the " + std::to_string(summary.shards.size()) +
                 " shards is removed once its data is safe in " + out.string() +
                 "; if that is interrupted, run the same command again to finish");
    counts = in_place(out, [&] { return gguf::merge_in_place(std::move(model), out, how); });
  } else {
    counts = gguf::merge(model, out, how);
  }
  console.finish_progress();
  print_result(options, summary, out, counts, std::chrono::steady_clock::now() - start, console);
  return 0;
}

}  // namespace dsctl::commands
