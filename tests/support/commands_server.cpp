#include "tests/support/commands_server.h"

#include <spdlog/spdlog.h>

#include "commands/serve/api_anthropic.h"
#include "commands/serve/api_embeddings.h"
#include "commands/serve/api_openai.h"
#include "commands/serve/api_tokens.h"

namespace dsctl::tests {

TestServer::TestServer(commands::serve::HttpServerOptions http,
                       commands::serve::HostOptions host_options)
    : host(source, host_options) {
  spdlog::set_level(spdlog::level::off);
  commands::serve::add_ollama_models(router_, context_);
  commands::serve::add_ollama_generation(router_, context_);
  commands::serve::add_openai(router_, context_);
  commands::serve::add_token_routes(router_, text_models_);
  commands::serve::add_anthropic(router_, context_, text_models_);
  commands::serve::add_embeddings(router_, context_);
  server_ = std::make_unique<commands::serve::HttpServer>(http, router_, workers_);
}

TestServer::~TestServer() {
  script->set([](EngineScript& s) { s.allowed_tokens = INT64_MAX; });
  server_->stop(std::chrono::milliseconds(0));
  host.stop();
  workers_.stop();
}

}  // namespace dsctl::tests
