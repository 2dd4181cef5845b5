#include <memory>

#include "cli/options.h"
#include "commands/verify.h"

namespace dsctl::cli {

void add_verify_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::VerifyOptions>();
  CLI::App* command =
      app.add_subcommand("verify", "Read the blobs of models again and name damaged ones");
  command->add_option("models", options->names, "Names of models; all blobs when none is given");
  command->add_flag("--delete", options->remove,
                    "Remove damaged blobs, so that a pull brings them again");
  command->add_option("--jobs", options->n_threads, "Blobs read at a time (0: one for each core)")
      ->check(CLI::Range(0, 256));
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::verify(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
