#include <memory>

#include "cli/options.h"
#include "commands/copy.h"

namespace dsctl::cli {

void add_cp_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::CopyOptions>();
  CLI::App* command = app.add_subcommand("cp", "Give a model a second name");
  command->add_option("source", options->source, "The model")->required();
  command->add_option("destination", options->destination, "Its other name")->required();
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::copy(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
