#include "commands/imatrix.h"

#include <memory>

#include "cli/options.h"

namespace dsctl::cli {

void add_imatrix_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ImatrixOptions>();
  CLI::App* command =
      app.add_subcommand("imatrix", "Make an importance matrix for quantize from a text");
  command
      ->add_option("model", options->model, "A model's name, a GGUF file, or any shard of a split")
      ->required();
  command->add_option("-f,--file", options->text, "The text")->required();
  command->add_option("-o,--output", options->out, "The file to write")->capture_default_str();
  command->add_option("-c,--ctx", options->n_ctx, "Tokens of a chunk")
      ->capture_default_str()
      ->check(CLI::Range(4, 1 << 20));
  command->add_option("--chunks", options->max_chunks, "Chunks at most; 0: all")
      ->check(CLI::Range(0, 1 << 30));
  command->add_option("--threads", options->n_threads, "Threads; 0: one for each physical core")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--force", options->force, "Replace the output when it exists");
  command->add_flag("--process-output", options->process_output, "Collect for output.weight too");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::imatrix(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
