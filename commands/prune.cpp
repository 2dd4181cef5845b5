#include "commands/prune.h"

#include <nlohmann/json.hpp>

#include "commands/duration.h"
#include "commands/error.h"
#include "commands/model_info.h"
#include "registry/prune.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

std::chrono::seconds parse_age(const std::string& text) {
  const KeepAlive age = parse_keep_alive(text, BareNumber::kSeconds);
  if (age == kForever) throw Error("--older-than " + text + ": expected a time such as 1h or 30m");
  return std::chrono::duration_cast<std::chrono::seconds>(age);
}

std::string to_json(const registry::PruneResult& result, bool dry_run) {
  Json json;
  json["dry_run"] = dry_run;
  json["freed_bytes"] = result.freed_bytes;
  json["removed"] = Json::array();
  for (const registry::PruneItem& item : result.items) {
    json["removed"].push_back({{"kind", registry::prune_kind_name(item.kind)},
                               {"path", item.path.string()},
                               {"freed_bytes", item.freed_bytes}});
  }
  json["notes"] = result.notes;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace

int prune(const Settings& settings, const PruneOptions& options, Console& console) {
  registry::PruneOptions prune_options;
  if (options.dry_run) prune_options.mode = registry::PruneOptions::Mode::kDryRun;
  if (!options.older_than.empty()) {
    prune_options.blob_age = prune_options.partial_age = parse_age(options.older_than);
  }
  registry::Observer observer;
  observer.status = [&console](std::string_view line) { console.note(line); };
  const registry::PruneResult result =
      registry::prune(registry::Registry(settings.models_dir), prune_options, observer);
  if (options.json) {
    console.print(to_json(result, options.dry_run));
    return 0;
  }
  for (const registry::PruneItem& item : result.items) {
    console.print((options.dry_run ? "would remove " : "removed ") + item.path.string() +
                  (item.freed_bytes > 0 ? " (" + format_size(item.freed_bytes) + ")" : "") + "\n");
  }
  for (const std::string& note : result.notes)
    console.note(note);
  console.print((options.dry_run ? "would free " : "freed ") + format_size(result.freed_bytes) +
                "\n");
  return 0;
}

}  // namespace dsctl::commands
