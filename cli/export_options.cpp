#include <memory>

#include "cli/options.h"
#include "commands/archive.h"

namespace dsctl::cli {

void add_export_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ExportOptions>();
  CLI::App* command = app.add_subcommand("export", "Write models into one tar file");
  command->add_option("models", options->names, "Names of the models")->required();
  command->add_option("-o,--output", options->output, "The file; - writes to standard output")
      ->required();
  command->add_flag("--force", options->force, "Replace a file that exists");
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::export_archive(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
