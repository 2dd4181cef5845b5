#include <memory>

#include "cli/options.h"
#include "commands/remove.h"

namespace dsctl::cli {

void add_rm_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::RemoveOptions>();
  CLI::App* command = app.add_subcommand("rm", "Remove models, and what only they use on disk");
  command->add_option("models", options->names, "Names of models")->required();
  command->add_flag("--json", options->json, "Print what was removed as JSON");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::remove(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
