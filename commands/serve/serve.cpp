#include "commands/serve/serve.h"

#include <signal.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "commands/error.h"
#include "commands/lora_flag.h"
#include "commands/serve/api_anthropic.h"
#include "commands/serve/api_embeddings.h"
#include "commands/serve/api_ollama.h"
#include "commands/serve/api_openai.h"
#include "commands/serve/api_pull.h"
#include "commands/serve/api_tokens.h"
#include "commands/serve/engine_process.h"
#include "commands/serve/http_server.h"
#include "commands/serve/registry_source.h"
#include "engine/kv_cache.h"

namespace dsctl::commands {
namespace {

using serve::HttpServer;

constexpr auto kStopGrace = std::chrono::seconds(10);
// When even cutting everything off takes longer than this, something hangs: leave without it.
// Engine processes notice and end by themselves.
constexpr auto kStopLimit = std::chrono::seconds(20);
constexpr int kWorkers = 4;
constexpr int kIoThreads = 2;

void log_to_stderr(spdlog::level::level_enum level) {
  spdlog::set_default_logger(spdlog::stderr_logger_mt("dsctl"));
  spdlog::set_pattern("%Y-%m-%dT%H:%M:%S.%e %l %v");
  spdlog::set_level(level);
}

// Every connection and engine takes a descriptor; the usual soft limit of 1024 is for select().
void raise_file_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

// SIGTERM and SIGINT are waited for; blocked for good before any thread starts, so that no thread
// is interrupted by them.
class StopSignals {
 public:
  StopSignals() {
    sigemptyset(&set_);
    sigaddset(&set_, SIGTERM);
    sigaddset(&set_, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set_, nullptr);
  }
  int wait() const {
    int number = 0;
    sigwait(&set_, &number);
    return number;
  }
  bool wait_for(std::chrono::seconds timeout) const {
    const timespec limit{.tv_sec = timeout.count(), .tv_nsec = 0};
    return sigtimedwait(&set_, nullptr, &limit) > 0;
  }

 private:
  sigset_t set_{};
};

serve::HostOptions host_options(const ServeOptions& options, const Settings& settings) {
  serve::HostOptions host;
  host.max_loaded_models = settings.max_loaded_models;
  host.max_waiting = options.max_queue;
  host.keep_alive = parse_keep_alive(settings.keep_alive, BareNumber::kSeconds);
  if (settings.context_length > 0) host.default_num_ctx = settings.context_length;
  if (settings.num_parallel > 0) host.engine.max_num_seqs = settings.num_parallel;
  host.engine.max_queue = options.max_queue;
  host.engine.n_threads = settings.n_threads;
  host.engine.adapters = parse_loras(options.loras);
  host.engine.kv_cache_type = engine::parse_kv_cache_type(settings.kv_cache_dtype);
  return host;
}

std::string url_of(const std::string& host, int port) {
  const bool v6 = host.find(':') != std::string::npos;
  return "http://" + (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

// Runs beside the orderly end: a second signal, or the limit, ends it at once.
[[noreturn]] void give_up(const StopSignals& signals) {
  const bool asked_again = signals.wait_for(kStopLimit);
  spdlog::warn("{}: leaving at once", asked_again ? "asked again" : "still not stopped");
  spdlog::default_logger()->flush();
  _exit(0);
}

}  // namespace

int run_server(const ServeOptions& options, const Settings& settings, Console& console) {
  log_to_stderr(options.quiet ? spdlog::level::warn : spdlog::level::info);
  raise_file_limit();
  const StopSignals signals;
  registry::Registry registry(settings.models_dir);
  serve::RegistrySource source(registry, std::filesystem::read_symlink("/proc/self/exe").string());
  // Destroyed from the last to the first. A job may be the last to hold a connection, so the server
  // outlives the host that ends the jobs.
  serve::Router router;
  std::unique_ptr<HttpServer> server;
  serve::WorkerPool workers(kWorkers);
  serve::ModelHost host(source, host_options(options, settings));
  const serve::ApiContext context{.jobs = {.source = source, .host = host, .workers = workers},
                                  .registry = registry};
  serve::add_ollama_models(router, context);
  serve::add_ollama_generation(router, context);
  serve::add_openai(router, context);
  serve::TextModels text_models(source);
  serve::add_token_routes(router, text_models);
  serve::add_anthropic(router, context, text_models);
  serve::add_embeddings(router, context);
  serve::PullThreads pulls;
  serve::add_ollama_pull(router, context, pulls);
  server = std::make_unique<HttpServer>(serve::HttpServerOptions{.host = settings.host,
                                                                 .port = settings.port,
                                                                 .n_threads = kIoThreads,
                                                                 .origins = options.origins,
                                                                 .limits = {}},
                                        router, workers);
  console.print("listening on " + url_of(settings.host, server->port()) + "\n");
  spdlog::info("models in {}", settings.models_dir.string());
  const int signal = signals.wait();
  spdlog::info("{}: stopping", strsignal(signal));
  // Detached: it sleeps on when everything has ended well, and outlives `signals` by copying it.
  std::thread([signals] { give_up(signals); }).detach();
  pulls.stop();  // what arrived stays, and the next pull goes on from there
  server->stop(kStopGrace);
  host.stop();
  workers.stop();
  spdlog::info("stopped");
  spdlog::default_logger()->flush();
  return 0;
}

int run_engine_process(int fd) {
  log_to_stderr(spdlog::level::warn);
  return serve::engine_process_main(fd);
}

}  // namespace dsctl::commands
