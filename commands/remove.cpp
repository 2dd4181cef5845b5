#include "commands/remove.h"

#include <nlohmann/json.hpp>

#include "registry/registry.h"

namespace dsctl::commands {

int remove(const Settings& settings, const RemoveOptions& options, Console& console) {
  std::vector<registry::ModelName> names;  // all parsed before anything is removed
  for (const std::string& name : options.names)
    names.push_back(registry::ModelName::parse(name));
  registry::Registry registry(settings.models_dir);
  registry::Observer observer;
  observer.status = [&console](std::string_view line) { console.note(line); };
  std::vector<std::string> deleted;
  std::vector<std::string> not_found;
  int64_t freed_bytes = 0;
  for (size_t i = 0; i < names.size(); ++i) {
    const auto result = registry.remove(names[i], observer);
    if (!result) {
      not_found.push_back(options.names[i]);
      console.note("error: model '" + options.names[i] + "' not found");
      continue;
    }
    deleted.push_back(options.names[i]);
    freed_bytes += result->freed_bytes;
    for (const std::string& note : result->notes)
      console.note(note);
    if (!options.json) console.print("deleted '" + options.names[i] + "'\n");
  }
  if (options.json) {
    nlohmann::ordered_json json;
    json["deleted"] = deleted;
    json["not_found"] = not_found;
    json["freed_bytes"] = freed_bytes;
    console.print(json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
                  "\n");
  }
  return not_found.empty() ? 0 : 1;
}

}  // namespace dsctl::commands
