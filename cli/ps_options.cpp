#include <memory>

#include "cli/options.h"
#include "commands/ps.h"
#include "commands/stop.h"

namespace dsctl::cli {

void add_ps_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::PsOptions>();
  CLI::App* command = app.add_subcommand("ps", "List the models that the server holds in memory");
  command->add_option("prefix", options->prefix, "Only names that begin with this");
  command->add_flag("--json", options->json, "Print JSON instead of a table");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::ps(*options, invocation.settings, *invocation.console);
    };
  });
}

void add_stop_command(CLI::App& app, Invocation& invocation) {
  auto model = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("stop", "Take a model out of the server's memory");
  command->add_option("model", *model, "A model's name")->required();
  command->callback([model, &invocation] {
    invocation.run = [model, &invocation] {
      return commands::stop(*model, invocation.settings, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
