#include <memory>

#include "cli/options.h"
#include "commands/archive.h"

namespace dsctl::cli {

void add_import_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ImportOptions>();
  CLI::App* command = app.add_subcommand("import", "Bring the models of a tar file into the store");
  command->add_option("file", options->input, "What export wrote; - reads standard input")
      ->required();
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::import_archive(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
