#include <memory>

#include "cli/options.h"
#include "commands/run.h"

namespace dsctl::cli {

void add_run_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::RunOptions>();
  auto words = std::make_shared<std::vector<std::string>>();
  CLI::App* command = app.add_subcommand("run", "Answer a prompt, or hold a conversation");
  command->add_option("model", options->model, "A model's name, or a GGUF file (any shard of it)")
      ->required();
  CLI::Option* prompt =
      command->add_option("prompt", *words, "The question; piped input is put before it");
  command->add_option("--system", options->system, "System message, instead of the model's own");
  // A flag with a value: "--think high" would take the prompt for the value.
  auto think = std::make_shared<std::string>();
  command->add_flag(
      "--think{true}", *think,
      "Thinking: --think, --think=false, or how much: --think=low, medium, high, max");
  command->add_flag("--hidethinking", options->hide_thinking,
                    "Think, but don't print the thoughts");
  command->add_flag("--verbose", options->verbose, "Print timings after each answer");
  command->add_flag("--nowordwrap", options->no_word_wrap, "Don't break lines between words");
  command->add_option("--format", options->format,
                      "What the answer must be: json, a JSON schema, or a file with one");
  command->add_option("--keepalive", options->keep_alive,
                      "How long the server keeps the model loaded, e.g. 5m");
  command->add_option("-n,--max-tokens", options->max_tokens, "Most tokens to generate");
  command->add_option("--temperature", options->temperature, "0: always the likeliest token");
  command->add_option("--top-k", options->top_k, "Keep the k likeliest tokens; 0: all");
  command->add_option("--top-p", options->top_p,
                      "Keep the likeliest tokens up to this probability");
  command->add_option("--seed", options->seed, "The same seed gives the same answer");
  command->add_option("--num-ctx", options->num_ctx, "Context in tokens");
  command->add_option("--threads", options->n_threads, "CPU threads; 0: one for each core")
      ->check(CLI::Range(0, 4096));
  command
      ->add_option("--lora", options->loras,
                   "A LoRA adapter in GGUF form, FILE or FILE=SCALE; implies --local")
      ->expected(1)
      ->take_all();
  command->add_flag("--local", options->local, "Use an engine of this process, never a server");
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->add_option("--models", invocation.settings.models_dir, "Directory of the models");
  command->callback([options, words, prompt, think, &invocation] {
    if (!think->empty()) options->think = *think;
    if (prompt->count() > 0) options->prompt = *words;
    invocation.run = [options, &invocation] {
      return commands::run(*options, invocation.settings, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
