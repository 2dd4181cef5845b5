#include "commands/verify.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/model_info.h"
#include "registry/verify.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

struct Outcome {
  registry::VerifyResult result;
  std::vector<registry::Digest> removed;
  double seconds = 0;

  double bytes_per_second() const {
    return seconds > 0 ? static_cast<double>(result.read_bytes) / seconds : 0;
  }
  bool was_removed(const registry::BadBlob& bad) const {
    return std::find(removed.begin(), removed.end(), bad.digest) != removed.end();
  }
};

std::vector<std::string> names_of(const registry::BadBlob& bad) {
  std::vector<std::string> names;
  for (const registry::ModelName& name : bad.models)
    names.push_back(name.short_form());
  return names;
}

std::string to_json(const Outcome& outcome) {
  Json json;
  json["models"] = outcome.result.n_models;
  json["blobs"] = outcome.result.n_blobs;
  json["bytes"] = outcome.result.read_bytes;
  json["seconds"] = outcome.seconds;
  json["bytes_per_second"] = outcome.bytes_per_second();
  json["bad"] = Json::array();
  for (const registry::BadBlob& bad : outcome.result.bad) {
    json["bad"].push_back({{"digest", bad.digest.to_string()},
                           {"problem", bad.problem},
                           {"models", names_of(bad)},
                           {"removed", outcome.was_removed(bad)}});
  }
  json["problems"] = outcome.result.problems;
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

void print_bad(const Outcome& outcome, Console& console) {
  for (const registry::BadBlob& bad : outcome.result.bad) {
    std::string users;
    for (const std::string& name : names_of(bad))
      users += (users.empty() ? "used by " : ", ") + name;
    console.print("bad: " + bad.digest.to_string() + ": " + bad.problem + "; " +
                  (users.empty() ? "used by no model" : users) +
                  (outcome.was_removed(bad) ? "; removed" : "") + "\n");
  }
}

}  // namespace

int verify(const Settings& settings, const VerifyOptions& options, Console& console) {
  std::vector<registry::ModelName> names;
  for (const std::string& name : options.names)
    names.push_back(registry::ModelName::parse(name));
  const registry::Registry registry(settings.models_dir);
  const auto start = std::chrono::steady_clock::now();
  Outcome outcome;
  outcome.result = registry::verify(registry, names, options.n_threads,
                                    [&](std::string_view what, int64_t done, int64_t total) {
                                      if (console.interrupted()) throw Error("interrupted");
                                      console.progress(what, done, total);
                                    });
  console.finish_progress();
  outcome.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (options.remove) {
    registry::Observer observer;
    observer.status = [&console](std::string_view line) { console.note(line); };
    outcome.removed = registry::remove_bad(registry, outcome.result.bad, observer);
  }
  const registry::VerifyResult& result = outcome.result;
  if (options.json) {
    console.print(to_json(outcome));
  } else {
    print_bad(outcome, console);
    for (const std::string& problem : result.problems)
      console.print("bad: " + problem + "\n");
    char seconds[32];
    std::snprintf(seconds, sizeof(seconds), "%.1f s", outcome.seconds);
    console.print(
        "verified " + std::to_string(result.n_blobs) + " blobs of " +
        std::to_string(result.n_models) + " models: " + format_size(result.read_bytes) + " in " +
        seconds + ", " + format_size(static_cast<int64_t>(outcome.bytes_per_second())) + "/s, " +
        (result.bad.empty() ? "all sound" : std::to_string(result.bad.size()) + " bad") + "\n");
  }
  return result.bad.empty() && result.problems.empty() ? 0 : 1;
}

}  // namespace dsctl::commands
