#include "commands/ps.h"

#include <cmath>
#include <cstdio>
#include <ctime>
#include <nlohmann/json.hpp>
#include <vector>

#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/serve/client.h"
#include "registry/model_name.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

std::string processor(int64_t size, int64_t on_gpu) {
  if (on_gpu == 0) return "100% CPU";
  if (on_gpu >= size) return "100% GPU";
  const double share = static_cast<double>(size - on_gpu) / static_cast<double>(size);
  const int cpu = static_cast<int>(std::lround(share * 100.0));
  return std::to_string(cpu) + "%/" + std::to_string(100 - cpu) + "% CPU/GPU";
}

std::string until(const Json& model) {
  if (model.value("forever", false)) return "Forever";
  std::tm parts{};
  const std::string text = model.value("expires_at", "");
  if (!strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &parts)) return "Unknown";
  const auto expires = std::chrono::system_clock::from_time_t(timegm(&parts));
  const auto left =
      std::chrono::duration_cast<std::chrono::seconds>(expires - std::chrono::system_clock::now());
  return left.count() < 0 ? "Stopping..." : format_relative_time(-left);
}

std::vector<std::string> row_of(const Json& model) {
  const int64_t size = model.value("size", int64_t{0});
  return {model.value("name", ""),
          model.value("digest", "").substr(0, 12),
          format_size(size),
          processor(size, model.value("size_vram", int64_t{0})),
          std::to_string(model.value("context_length", int64_t{0})),
          until(model)};
}

void print_table(const std::vector<std::vector<std::string>>& rows, Console& console) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i)
      widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      text += i + 1 < row.size() ? std::string(widths[i] - row[i].size() + 4, ' ') : "\n";
    }
  }
  console.print(text);
}

}  // namespace

int ps(const PsOptions& options, const Settings& settings, Console& console) {
  const serve::HttpClient client(settings.host, settings.port);
  const serve::ClientResponse response = client.request("GET", "/api/ps", "");
  const Json body = Json::parse(response.body, nullptr, false);
  if (response.status != 200 || !body.is_object() || !body.value("models", Json()).is_array()) {
    throw Error("the server at " + client.url() + " answered with status " +
                std::to_string(response.status));
  }
  Json models = Json::array();
  for (const Json& model : body["models"]) {
    if (registry::starts_with_ignoring_case(model.value("name", ""), options.prefix)) {
      models.push_back(model);
    }
  }
  if (options.json) {
    console.print(models.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
    return 0;
  }
  std::vector<std::vector<std::string>> rows{
      {"NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"}};
  for (const Json& model : models)
    rows.push_back(row_of(model));
  print_table(rows, console);
  return 0;
}

}  // namespace dsctl::commands
