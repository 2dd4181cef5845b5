#include <memory>

#include "cli/options.h"
#include "commands/convert.h"

namespace dsctl::cli {

void add_convert_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ConvertOptions>();
  auto dry_run = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand(
      "convert", "Make a GGUF file from a directory of safetensors, as the Hub has them");
  command->add_option("dir", options->dir, "Directory with config.json, safetensors, tokenizer")
      ->required();
  command->add_option("out", options->out, "The GGUF file to write");
  command
      ->add_option("--outtype", options->out_type,
                   "Type of the matrices; auto keeps 16 bits and holds AWQ and GPTQ exactly")
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0"}, CLI::ignore_case))
      ->capture_default_str();
  command->add_option("--quantize", options->quantize,
                      "Quantise on the way: Q4_K_M and the other types of quantize");
  command->add_flag("--inexact", options->inexact,
                    "Take the nearest value where 4-bit codes don't fit the type exactly");
  command->add_option("--name", options->name, "general.name of the file");
  command->add_option("--pre", options->pre_tokenizer,
                      "Name of the pre-tokenizer, when it is not recognised");
  command->add_option("--threads", options->n_threads, "Threads; 0 is one for each processor")
      ->check(CLI::Range(0, 1024));
  command->add_flag("--force", options->force, "Replace OUT when it exists");
  command->add_flag("--dry-run", *dry_run, "List what would be written");
  command->add_flag("--json", options->json, "Print what was (or would be) written as JSON");
  command->callback([options, dry_run, &invocation] {
    if (*dry_run) options->dry_run = commands::DryRun::kYes;
    invocation.run = [options, &invocation] {
      return commands::convert(*options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
