#include <memory>

#include "cli/options.h"
#include "commands/prune.h"

namespace dsctl::cli {

void add_prune_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::PruneOptions>();
  CLI::App* command = app.add_subcommand("prune", "Give back the space of what no model needs");
  command->add_flag("--dry-run", options->dry_run, "Only say what would be removed");
  command->add_option("--older-than", options->older_than,
                      "Only what was not touched for so long (1h for blobs and 168h for partial "
                      "downloads, unless given)");
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::prune(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
