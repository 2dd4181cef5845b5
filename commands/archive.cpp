#include "commands/archive.h"

#include <nlohmann/json.hpp>

#include "commands/error.h"
#include "commands/model_info.h"
#include "registry/archive.h"

namespace dsctl::commands {
namespace {

using Json = nlohmann::ordered_json;

registry::Observer observer_of(Console& console) {
  registry::Observer observer;
  observer.progress = [&console](std::string_view what, int64_t done, int64_t total) {
    if (console.interrupted()) throw Error("interrupted");
    console.progress(what, done, total);
  };
  observer.status = [&console](std::string_view line) { console.note(line); };
  return observer;
}

std::vector<std::string> short_forms(const std::vector<registry::ModelName>& names) {
  std::vector<std::string> texts;
  for (const registry::ModelName& name : names)
    texts.push_back(name.short_form());
  return texts;
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string count(size_t n, const std::string& what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

}  // namespace

int export_archive(const Settings& settings, const ExportOptions& options, Console& console) {
  std::vector<registry::ModelName> names;
  for (const std::string& name : options.names)
    names.push_back(registry::ModelName::parse(name));
  const registry::Registry registry(settings.models_dir);
  const registry::Observer observer = observer_of(console);
  const bool to_stdout = options.output == "-";
  if (to_stdout && console.stdout_is_terminal()) {
    throw Error("standard output is a terminal; give -o FILE or a pipe");
  }
  if (to_stdout && options.json) throw Error("--json needs -o FILE: standard output is taken");
  const registry::ExportResult result =
      to_stdout
          ? registry::export_to_stdout(registry, names, observer)
          : registry::export_to_file(
                registry, names, options.output,
                options.force ? registry::Overwrite::kYes : registry::Overwrite::kNo, observer);
  console.finish_progress();
  const std::string summary = count(result.models.size(), "model") + ", " +
                              count(result.n_blobs, "blob") + ", " + format_size(result.size_bytes);
  if (to_stdout) {
    console.note("exported " + summary);
  } else if (options.json) {
    console.print(dump({{"path", options.output.string()},
                        {"models", short_forms(result.models)},
                        {"blobs", result.n_blobs},
                        {"size", result.size_bytes}}));
  } else {
    console.print("exported " + summary + " to " + options.output.string() + "\n");
  }
  return 0;
}

int import_archive(const Settings& settings, const ImportOptions& options, Console& console) {
  registry::Registry registry(settings.models_dir);
  const bool from_stdin = options.input == "-";
  if (from_stdin && console.stdin_is_terminal()) {
    throw Error("standard input is a terminal; give a file or a pipe");
  }
  const registry::Observer observer = observer_of(console);
  const registry::ImportResult result =
      from_stdin ? registry::import_from_stdin(registry, observer)
                 : registry::import_from_file(registry, options.input, observer);
  console.finish_progress();
  if (options.json) {
    console.print(dump({{"models", short_forms(result.models)},
                        {"new_blobs", result.n_new_blobs},
                        {"new_bytes", result.new_bytes},
                        {"known_blobs", result.n_known_blobs}}));
    return 0;
  }
  for (const std::string& name : short_forms(result.models))
    console.print("imported '" + name + "'\n");
  console.note(count(result.n_new_blobs, "new blob") + " (" + format_size(result.new_bytes) +
               "), " + count(result.n_known_blobs, "blob") + " known already");
  return 0;
}

}  // namespace dsctl::commands
