#include <limits>
#include <memory>

#include "cli/options.h"
#include "commands/split.h"

namespace dsctl::cli {

void add_split_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::SplitOptions>();
  CLI::App* command = app.add_subcommand("split", "Cut a model into shards");
  command
      ->add_option("file", options->file,
                   "A GGUF file, any shard of a split model, or a stored model")
      ->required();
  command
      ->add_option("prefix", options->prefix,
                   "How the names begin: PREFIX-00001-of-0000N.gguf; or a directory")
      ->required();
  CLI::Option_group* rule = command->add_option_group("Rule", "One of");
  rule->add_option("--max-size", options->max_size_bytes,
                   "Tensor data in a shard: 50G, 500M, 48GiB or bytes; G and M are decimal")
      ->transform(CLI::AsSizeValue(true))
      ->check([](const std::string& bytes) {
        return bytes.empty() || bytes.front() == '-' || bytes == "0" ? "expected a size above 0"
                                                                     : std::string();
      });
  rule->add_option("--max-tensors", options->max_tensors, "Tensors in a shard")
      ->check(CLI::Range(1, std::numeric_limits<int>::max()));
  rule->require_option(1);
  command->add_flag("--no-tensor-first-split", options->no_tensor_first_split,
                    "The first shard has the metadata only");
  command->add_flag("--verify", options->verify, "Read both sides again and compare every tensor");
  command->add_flag("--force", options->force, "Replace shards that exist");
  command->add_flag("--dry-run", options->dry_run, "Print the shards that would be written");
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::split(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
