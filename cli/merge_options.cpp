#include <memory>

#include "cli/options.h"
#include "commands/merge.h"

namespace dsctl::cli {

void add_merge_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::MergeOptions>();
  auto paths = std::make_shared<std::vector<std::filesystem::path>>();
  CLI::App* command = app.add_subcommand("merge", "Join the shards of a split model in one file");
  command
      ->add_option("shards", *paths,
                   "Any one shard, several, their directory, a pattern or a stored model; then the "
                   "file to write, or a directory for it")
      ->required()
      ->expected(2, CLI::detail::expected_max_vector_size)
      ->option_text("SHARD... OUT");
  command->add_flag(
      "--in-place", options->in_place,
      "Remove each shard once its data is safe, so that the model needs its size once "
      "and one shard; resumable");
  command->add_flag("--verify", options->verify, "Read both sides again and compare every tensor");
  command->add_flag("--force", options->force, "Replace OUT when it exists");
  command->add_flag("--dry-run", options->dry_run,
                    "Check the shards, print what would be done and whether there is room");
  command->add_flag("--json", options->json, "Print one JSON object instead of text");
  command->callback([options, paths, &invocation] {
    options->out = paths->back();
    options->shards.assign(paths->begin(), paths->end() - 1);
    invocation.run = [options, &invocation] {
      return commands::merge(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
