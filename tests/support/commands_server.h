// A whole server on a free port, with fake models and an empty registry.
#pragma once

#include <memory>

#include "commands/serve/api_ollama.h"
#include "commands/serve/http_server.h"
#include "commands/serve/text_models.h"
#include "tests/support/commands_fakes.h"
#include "tests/support/paths.h"

namespace dsctl::tests {

class TestServer {
 public:
  explicit TestServer(commands::serve::HttpServerOptions http = {},
                      commands::serve::HostOptions host = {});
  ~TestServer();

  int port() const { return server_->port(); }
  HttpReply get(const std::string& path) { return fetch(port(), "GET", path); }
  HttpReply post(const std::string& path, const std::string& body) {
    return fetch(port(), "POST", path, body);
  }

  TempDir dir;
  std::shared_ptr<EngineScript> script = std::make_shared<EngineScript>();
  FakeSource source{script};
  registry::Registry registry{dir.path()};

 private:
  commands::serve::Router router_;
  commands::serve::TextModels text_models_{source};
  std::unique_ptr<commands::serve::HttpServer> server_;
  commands::serve::WorkerPool workers_{4};

 public:
  commands::serve::ModelHost host;
  commands::serve::HttpServer& server() { return *server_; }

 private:
  commands::serve::ApiContext context_{
      .jobs = {.source = source, .host = host, .workers = workers_}, .registry = registry};
};

}  // namespace dsctl::tests
