#include <memory>

#include "cli/options.h"
#include "commands/create.h"

namespace dsctl::cli {

void add_create_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::CreateOptions>();
  CLI::App* command = app.add_subcommand("create", "Make a model from a Modelfile");
  command->add_option("model", options->name, "Name of the model: [host/[namespace/]]name[:tag]")
      ->required();
  command->add_option("-f,--file", options->file, "The Modelfile; - reads standard input")
      ->capture_default_str();
  command->add_flag("--copy", options->copy,
                    "Copy weights where they would be hard-linked to the original file");
  command->add_option("-q,--quantize", options->quantize,
                      "Quantise what FROM names on the way: Q4_K_M, Q8_0, ...");
  command->add_flag("--allow-requantize", options->allow_requantize,
                    "Take a model that is quantised already; loses quality");
  command->add_flag("--json", options->json, "Print name, digest and size as JSON");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::create(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
