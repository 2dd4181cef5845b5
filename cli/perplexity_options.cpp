#include "commands/perplexity.h"

#include <memory>

#include "cli/options.h"

namespace dsctl::cli {

void add_perplexity_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::PerplexityOptions>();
  CLI::App* command = app.add_subcommand("perplexity", "Measure how well a model foretells a text");
  command
      ->add_option("model", options->model, "A model's name, a GGUF file, or any shard of a split")
      ->required();
  command->add_option("-f,--file", options->text, "The text");
  command->add_option("-c,--ctx", options->n_ctx, "Tokens of a chunk; its second half is scored")
      ->capture_default_str()
      ->check(CLI::Range(4, 1 << 20));
  command->add_option("--chunks", options->max_chunks, "Chunks at most; 0: all")
      ->check(CLI::Range(0, 1 << 30));
  command->add_option("--threads", options->n_threads, "Threads; 0: one for each physical core")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--force", options->force, "Replace the file of --save-base when it exists");
  command->add_option("--save-base", options->save_base,
                      "Write all log-probabilities to this file, to compare others with it");
  command->add_option("--kl-divergence", options->compare_to,
                      "Compare with such a file, also one of llama-perplexity; the text is in it");
  command->add_flag("--reference", options->reference_kernels,
                    "Compute with the readable kernels instead of the fast ones");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::perplexity(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
