#include <memory>
#include <utility>

#include "cli/options.h"
#include "commands/show.h"

namespace dsctl::cli {

void add_show_command(CLI::App& app, Invocation& invocation) {
  using Part = commands::ShowOptions::Part;
  auto options = std::make_shared<commands::ShowOptions>();
  CLI::App* command = app.add_subcommand("show", "Show what a model or a model file holds");
  command
      ->add_option("model", options->model,
                   "A model's name, a GGUF file, or any shard of a split model")
      ->required();
  command->add_flag("--metadata", options->metadata,
                    "Also every metadata key; with --json long arrays in full");
  command->add_flag("--tensors", options->tensors, "Also every tensor: name, type, shape, size");
  command->add_flag_callback(
      "-v,--verbose", [options] { options->metadata = options->tensors = true; },
      "The same as --metadata --tensors");
  CLI::Option_group* form = command->add_option_group("Form", "One of");
  form->add_flag("--json", options->json, "Print one JSON object instead of text");
  for (const auto& [flag, part, help] :
       {std::tuple{"--modelfile", Part::kModelfile, "Print a Modelfile that makes the model again"},
        std::tuple{"--parameters", Part::kParameters, "Print the parameters"},
        std::tuple{"--template", Part::kTemplate, "Print the template"},
        std::tuple{"--system", Part::kSystem, "Print the system message"},
        std::tuple{"--license", Part::kLicense, "Print the license"}}) {
    form->add_flag_callback(
        flag, [options, chosen = part] { options->part = chosen; }, help);
  }
  form->require_option(0, 1);
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::show(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
