#include <memory>

#include "cli/options.h"
#include "commands/show_file.h"

namespace dsctl::cli {

void add_show_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ShowFileOptions>();
  CLI::App* command = app.add_subcommand("show", "Show what a model file holds");
  command->add_option("file", options->path, "A GGUF file, or any shard of a split model")
      ->required();
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->add_flag("--metadata", options->metadata,
                    "Also every metadata key; with --json long arrays in full");
  command->add_flag("--tensors", options->tensors, "Also every tensor: name, type, shape, size");
  command->add_flag_callback(
      "-v,--verbose", [options] { options->metadata = options->tensors = true; },
      "The same as --metadata --tensors");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::show_file(*options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
