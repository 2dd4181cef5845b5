#include <memory>

#include "cli/options.h"
#include "commands/pull.h"

namespace dsctl::cli {

void add_pull_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::PullOptions>();
  auto limit = std::make_shared<std::string>();
  commands::PullRequest& request = options->request;
  CLI::App* command = app.add_subcommand(
      "pull", "Fetch a model from Hugging Face, ModelScope, git-LFS or an Ollama registry");
  command
      ->add_option(
          "model", request.model,
          "ORG/REPO[:QUANT], hf.co/ORG/REPO[:QUANT], modelscope.cn/ORG/REPO[:QUANT], a URL "
          "of a repository, or a name of Ollama's library")
      ->required();
  command
      ->add_option("--source", request.source,
                   "Where a name without a host is: auto, hf, modelscope, ollama or git")
      ->capture_default_str()
      ->check(CLI::IsMember({"auto", "hf", "huggingface", "modelscope", "ollama", "git"}));
  command->add_option("--name", request.name, "Name of the model here, instead of its own");
  command->add_option("-I,--include", request.include,
                      "Only files that match: patterns as git-lfs has them, separated by commas");
  command->add_option("-X,--exclude", request.exclude, "Without files that match");
  command->add_option("--revision", request.revision, "Branch, tag or commit");
  command->add_option("--local-dir", request.local_dir,
                      "Put plain files there instead of a model into the registry");
  command->add_option("--jobs", options->jobs, "Connections at a time")
      ->capture_default_str()
      ->check(CLI::Range(1, 64));
  command->add_option("--limit-rate", *limit, "Bytes a second at most: 500k, 10M, 1.5G");
  command->add_flag("--dry-run", options->dry_run,
                    "Say what would be fetched, the free space and the fit; fetch nothing");
  command->add_flag("--json", options->json, "Print one JSON object a line");
  command->add_flag("--insecure", request.insecure, "Allow plain HTTP to a registry");
  command->add_flag("-q,--quiet", options->quiet, "Print nothing but errors");
  command->callback([options, limit, &invocation] {
    if (!limit->empty()) options->limit_bytes_per_second = commands::parse_rate(*limit);
    invocation.run = [options, &invocation] {
      return commands::pull(invocation.settings, *options, *invocation.console);
    };
  });
}

}  // namespace dsctl::cli
