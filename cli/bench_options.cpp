#include <memory>

#include "cli/options.h"
#include "commands/bench.h"
#include "commands/bench_server.h"

namespace dsctl::cli {
namespace {

constexpr int kMaxTokens = 1 << 24;

/// Lists as they were given.
struct Lists {
  std::string n_prompt = "512";
  std::string n_gen = "128";
  std::string n_seqs = "1";
  std::string depths = "0";
  std::string concurrency = "1";
};

struct BenchFlags {
  commands::BenchOptions local;
  commands::BenchServerOptions server;
  Lists lists;
};

void add_local_flags(CLI::App& command, const std::shared_ptr<BenchFlags>& flags) {
  using engine::Device;
  commands::BenchOptions& options = flags->local;
  const std::string group = "This machine";
  command.add_option("-p,--n-prompt", flags->lists.n_prompt, "Tokens of a prompt; a list, 0: none")
      ->capture_default_str()
      ->group(group);
  command.add_option("-n,--n-gen", flags->lists.n_gen, "Tokens to generate; a list, 0: none")
      ->capture_default_str()
      ->group(group);
  command.add_option("-b,--batch", flags->lists.n_seqs, "Sequences at a time; a list")
      ->capture_default_str()
      ->group(group);
  command.add_option("-d,--depth", flags->lists.depths, "Tokens of context before; a list")
      ->capture_default_str()
      ->group(group);
  command.add_option("-r,--repetitions", options.repetitions, "Times that each test is run")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000))
      ->group(group);
  command
      .add_option("-t,--threads", options.n_threads, "CPU threads; 0: one for each physical core")
      ->check(CLI::Range(0, 4096))
      ->group(group);
  command.add_option("--ubatch", options.n_batch, "Tokens of one step of a prompt")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 16))
      ->group(group);
  command
      .add_flag_callback(
          "--no-warmup", [flags] { flags->local.warm_up = false; }, "Measure the first run, too")
      ->group(group);
  command.add_option("--device", options.device, "auto, cpu or cuda")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, Device>{
              {"auto", Device::kAuto}, {"cpu", Device::kCpu}, {"cuda", Device::kCuda}},
          CLI::ignore_case))
      ->group(group);
  command
      .add_option("--load-format", options.load_format,
                  "file, or dummy: random weights of a GGUF file's header or of a named shape "
                  "(llama3-8b, llama3-70b, qwen2.5-7b, -14b, -32b, -72b, deepseek-r1; Q4_K_M)")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, commands::LoadFormat>{{"file", commands::LoadFormat::kFile},
                                                      {"dummy", commands::LoadFormat::kDummy}},
          CLI::ignore_case))
      ->group(group);
  command.add_option("--layers", options.n_layers, "With dummy: only so many layers")
      ->check(CLI::Range(1, 4096))
      ->group(group);
  command.add_option("--lora", options.loras, "A LoRA adapter in GGUF form, FILE or FILE=SCALE")
      ->expected(1)
      ->take_all()
      ->group(group);
}

void add_server_flags(CLI::App& command, const std::shared_ptr<BenchFlags>& flags) {
  using commands::ServerApi;
  commands::BenchServerOptions& options = flags->server;
  const std::string group = "A server";
  command.add_option("--server", options.url, "Measure this server: http://HOST:PORT")
      ->group(group);
  command.add_option("--api", options.api, "openai or ollama")
      ->transform(
          CLI::CheckedTransformer(std::map<std::string, ServerApi>{{"openai", ServerApi::kOpenai},
                                                                   {"ollama", ServerApi::kOllama}},
                                  CLI::ignore_case))
      ->group(group);
  command.add_option("--concurrency", flags->lists.concurrency, "Clients at a time; a list")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--num-prompts", options.n_prompts,
                  "Requests of each level; 0: four a client, at least 16")
      ->check(CLI::Range(0, 1 << 24))
      ->group(group);
  command.add_option("--input-len", options.input_len, "Tokens of a prompt, about")
      ->capture_default_str()
      ->check(CLI::Range(1, kMaxTokens))
      ->group(group);
  command.add_option("--output-len", options.output_len, "Tokens of an answer")
      ->capture_default_str()
      ->check(CLI::Range(1, kMaxTokens))
      ->group(group);
  command
      .add_option("--request-rate", options.request_rate,
                  "Requests a second, at random moments (Poisson), instead of one after another")
      ->check(CLI::Range(0.0, 1e6))
      ->group(group);
  command.add_option("--seed", options.seed, "Of prompts and moments")
      ->capture_default_str()
      ->group(group);
}

int run_bench(BenchFlags& flags, Invocation& invocation) {
  using commands::parse_number_list;
  const Lists& lists = flags.lists;
  if (!flags.server.url.empty()) {
    flags.server.model = flags.local.model;
    flags.server.form = flags.local.form;
    flags.server.concurrency = parse_number_list(lists.concurrency, "--concurrency", 1, 4096);
    return commands::bench_server(flags.server, *invocation.console);
  }
  commands::BenchOptions& options = flags.local;
  options.n_prompt = parse_number_list(lists.n_prompt, "--n-prompt", 0, kMaxTokens);
  options.n_gen = parse_number_list(lists.n_gen, "--n-gen", 0, kMaxTokens);
  options.n_seqs = parse_number_list(lists.n_seqs, "--batch", 1, 4096);
  options.depths = parse_number_list(lists.depths, "--depth", 0, kMaxTokens);
  return commands::bench(invocation.settings, options, *invocation.console);
}

}  // namespace

void add_bench_command(CLI::App& app, Invocation& invocation) {
  using commands::ReportForm;
  auto flags = std::make_shared<BenchFlags>();
  CLI::App* command =
      app.add_subcommand("bench", "Measure speed: of a model on this machine, or of a server");
  CLI::Option* model = command->add_option(
      "model", flags->local.model,
      "A model's name or a GGUF file; of a server: a name it lists (default: the first)");
  command->add_option("-o,--output", flags->local.form, "md, csv, json or jsonl")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, ReportForm>{{"md", ReportForm::kMarkdown},
                                            {"csv", ReportForm::kCsv},
                                            {"json", ReportForm::kJson},
                                            {"jsonl", ReportForm::kJsonLines}},
          CLI::ignore_case));
  command->add_option("--models", invocation.settings.models_dir, "Directory of the models");
  add_local_flags(*command, flags);
  add_server_flags(*command, flags);
  command->callback([flags, model, &invocation] {
    if (model->count() == 0 && flags->server.url.empty()) {
      throw CLI::RequiredError("a model, or --server URL,");
    }
    invocation.run = [flags, &invocation] { return run_bench(*flags, invocation); };
  });
}

}  // namespace dsctl::cli
