#include "commands/list.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>

#include "commands/model_info.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

Json details_json(const registry::ModelConfig& config) {
  Json details;
  details["parent_model"] = "";
  details["format"] = config.model_format;
  details["family"] = config.model_family;
  details["families"] = config.model_families;
  details["parameter_size"] = config.model_type;
  details["quantization_level"] = config.file_type;
  if (config.context_length > 0) details["context_length"] = config.context_length;
  if (config.embedding_length > 0) details["embedding_length"] = config.embedding_length;
  return details;
}

}  // namespace

std::string list_json(const registry::ModelList& models) {
  Json root;
  root["models"] = Json::array();
  for (const registry::ModelEntry& entry : models.models) {
    Json item;
    item["name"] = entry.name.short_form();
    item["model"] = entry.name.short_form();
    item["modified_at"] = format_time(entry.modified_at);
    item["size"] = entry.size_bytes;
    item["digest"] = entry.digest.hex();
    item["details"] = details_json(entry.config);
    root["models"].push_back(std::move(item));
  }
  return root.dump(-1, ' ', false, Json::error_handler_t::replace);
}

int list(const Settings& settings, const ListOptions& options, Console& console) {
  registry::ModelList models = registry::Registry(settings.models_dir).list();
  for (const std::string& problem : models.problems)
    console.note("skipped: " + problem);
  std::erase_if(models.models, [&](const registry::ModelEntry& entry) {
    return !registry::starts_with_ignoring_case(entry.name.short_form(), options.prefix);
  });
  if (options.json) {
    console.print(list_json(models) + "\n");
    return 0;
  }
  std::vector<std::vector<std::string>> rows = {{"NAME", "ID", "SIZE", "MODIFIED"}};
  const auto now = std::chrono::system_clock::now();
  for (const registry::ModelEntry& entry : models.models) {
    const bool remote = !entry.config.remote_host.empty();
    const auto ago = std::chrono::duration_cast<std::chrono::seconds>(now - entry.modified_at);
    rows.push_back({entry.name.short_form(), entry.digest.short_hex(),
                    remote ? "-" : format_size(entry.size_bytes), format_relative_time(ago)});
  }
  console.print(format_table(rows));
  return 0;
}

}  // namespace dsctl::commands
