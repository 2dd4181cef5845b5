#include "commands/copy.h"

#include "registry/registry.h"

namespace dsctl::commands {

int copy(const Settings& settings, const CopyOptions& options, Console& console) {
  registry::Registry registry(settings.models_dir);
  registry::Observer observer;
  observer.status = [&console](std::string_view line) { console.note(line); };
  registry.copy(registry::ModelName::parse(options.source),
                registry::ModelName::parse(options.destination), observer);
  console.print("copied '" + options.source + "' to '" + options.destination + "'\n");
  return 0;
}

}  // namespace dsctl::commands
