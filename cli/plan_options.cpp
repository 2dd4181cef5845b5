#include <memory>

#include "cli/options.h"
#include "commands/plan.h"

namespace dsctl::cli {

void add_plan_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::PlanOptions>();
  CLI::App* command = app.add_subcommand(
      "plan", "Tell whether a model fits a machine and how fast it will be, from its headers");
  command
      ->add_option("models", options->models,
                   "A model's name, a GGUF file or its URL, ORG/REPO:QUANT; several give a table")
      ->required();
  command->add_option("--gpus", options->gpus,
                      "Plan for these GPUs: 8xH800, 2xA100-40GB, 4x24GB@936 (GB/s)");
  command->add_option("--ram", options->ram, "Plan for this memory: 64GB, 512GB@300 (GB/s)");
  command->add_option("--cores", options->cores, "Plan for so many cores where there are no GPUs")
      ->check(CLI::Range(1, 4096));
  command->add_option("--ctx", options->n_context, "Tokens of context (default 8192)")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 31));
  command->add_option("--kv-dtype", options->kv_type,
                      "Type of the KV cache: f32, f16, bf16, q8_0, fp8, q4_0");
  command->add_option("--tp", options->tp_size, "GPUs to use (default: the fewest that hold it)")
      ->check(CLI::Range(1, 1024));
  command->add_option("--source", options->source, "auto, hf, modelscope, ollama, git")
      ->capture_default_str();
  command->add_option("--revision", options->revision, "Branch, tag or commit of the repository");
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::plan(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
