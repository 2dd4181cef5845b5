#include <memory>

#include "cli/options.h"
#include "commands/serve/serve.h"

namespace dsctl::cli {

void add_serve_command(CLI::App& app, Invocation& invocation) {
  auto options = std::make_shared<commands::ServeOptions>();
  commands::Settings& settings = invocation.settings;
  CLI::App* command = app.add_subcommand("serve", "Answer Ollama's and OpenAI's API over HTTP");
  command->alias("start");
  command->add_option("--host", settings.host, "Address to listen on")->capture_default_str();
  command->add_option("--port", settings.port, "Port to listen on; 0: a free one, which is printed")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  command->add_option("--models", settings.models_dir, "Directory of the models")
      ->capture_default_str();
  command
      ->add_option("--keepalive", settings.keep_alive,
                   "How long an idle model stays loaded: 5m, 1h30m, seconds; negative: forever")
      ->capture_default_str();
  command
      ->add_option("--max-loaded-models", settings.max_loaded_models,
                   "Models in memory at a time; idle ones make room for others")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  command
      ->add_option("--num-parallel", settings.num_parallel,
                   "Requests of a model computed at once; 0: the engine's default")
      ->check(CLI::Range(0, 65536))
      ->capture_default_str();
  command
      ->add_option("--ctx", settings.context_length,
                   "Context in tokens where model and request say nothing; 0: the default")
      ->check(CLI::Range(0, 1 << 24))
      ->capture_default_str();
  command->add_option("--threads", settings.n_threads, "CPU threads; 0: one for each core")
      ->check(CLI::Range(0, 4096))
      ->capture_default_str();
  command
      ->add_option("--kv-cache-dtype", settings.kv_cache_dtype,
                   "How keys and values are kept: f16 halves their memory, f32 rounds nothing")
      ->check(CLI::IsMember({"auto", "f16", "f32", "float16", "float32"}))
      ->capture_default_str();
  command
      ->add_option("--max-queue", options->max_queue,
                   "Waiting requests of a model before others get 503")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      ->add_option("--lora", options->loras,
                   "A LoRA adapter in GGUF form for every model, FILE or FILE=SCALE")
      ->expected(1)
      ->take_all();
  command->add_option("--origin", options->origins,
                      "A web origin that may use this server besides local ones; * is any text");
  command->add_flag("--quiet", options->quiet, "Log warnings and errors only");
  command->callback([options, &invocation] {
    invocation.run = [options, &invocation] {
      return commands::run_server(*options, invocation.settings, *invocation.console);
    };
  });
}

void add_engine_process_command(CLI::App& app, Invocation& invocation) {
  auto fd = std::make_shared<int>(-1);
  CLI::App* command = app.add_subcommand("engine-process", "")->group("");
  command->add_option("--fd", *fd)->required();
  command->callback(
      [fd, &invocation] { invocation.run = [fd] { return commands::run_engine_process(*fd); }; });
}

}  // namespace dsctl::cli
