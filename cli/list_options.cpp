#include <memory>

#include "cli/options.h"
#include "commands/list.h"

namespace dsctl::cli {

void add_list_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ListOptions>();
  CLI::App* command = app.add_subcommand("list", "List the models on this machine");
  command->alias("ls");
  command->add_option("prefix", options->prefix, "Only names that begin so");
  command->add_flag("--json", options->json, "Print one JSON object instead of a table");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::list(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
