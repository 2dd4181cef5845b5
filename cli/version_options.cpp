#include <memory>

#include "cli/options.h"
#include "commands/version.h"

namespace dsctl::cli {

void add_version_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::VersionOptions>();
  CLI::App* command = app.add_subcommand("version", "Print the version");
  command->add_flag("--verbose", options->verbose,
                    "Also what was found on this machine: processor, CUDA library, GPUs");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::version(*options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
