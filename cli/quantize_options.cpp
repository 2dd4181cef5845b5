#include "commands/quantize.h"

#include <memory>

#include "cli/options.h"

namespace dsctl::cli {

void add_quantize_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::QuantizeOptions>();
  CLI::App* command = app.add_subcommand("quantize", "Write a model in fewer bits");
  command
      ->add_option("model", options->model, "A model's name, a GGUF file, or any shard of a split")
      ->required();
  command->add_option("out", options->out, "The GGUF file to write")->required();
  command->add_option("type", options->type, "Q4_K_M, Q8_0, F16 ...: the list is below")
      ->required();
  command->add_option("--imatrix", options->imatrix,
                      "Importance of the columns, made by `dsctl imatrix` or llama-imatrix");
  command->add_option("--output-tensor-type", options->output_tensor_type, "Type of output.weight");
  command->add_option("--token-embedding-type", options->token_embedding_type,
                      "Type of token_embd.weight");
  command
      ->add_option("--tensor-type", options->tensor_types,
                   "PATTERN=TYPE: type of the tensors in whose names the regular expression "
                   "matches; may be given again")
      ->take_all()
      ->type_size(1)
      ->allow_extra_args(false);
  command->add_flag("--pure", options->pure, "All tensors get the one type");
  command->add_flag("--leave-output-tensor", options->leave_output_tensor,
                    "Keep output.weight as it is");
  command->add_flag("--allow-requantize", options->allow_requantize,
                    "Take tensors that are quantised already; loses quality");
  command->add_flag("--keep-split", options->keep_split, "One file for each shard of the model");
  command->add_flag("--force", options->force, "Replace OUT when it exists");
  command->add_flag("--dry-run", options->dry_run, "Print types and sizes, write nothing");
  command->add_option("--threads", options->n_threads, "Threads; 0: one for each processor")
      ->check(CLI::Range(0, 1024));
  command->footer("Types:\n" + commands::quantize_types_help());
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::quantize(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
