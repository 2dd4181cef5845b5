// HttpServer: HTTP/1.1 on one listening socket with limits everywhere: connections, header and body
// sizes, the time a client may take to send and to read. No Boost in this header.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "commands/serve/router.h"
#include "commands/serve/worker_pool.h"

namespace dsctl::commands::serve {

struct HttpLimits {
  int max_connections = 1024;
  size_t max_header_bytes = 32u << 10;
  size_t max_queued_bytes = 4u << 20;                // of one answer that the client does not read
  std::chrono::milliseconds header_timeout{10'000};  // first byte of a request to end of header
  std::chrono::milliseconds body_timeout{60'000};    // whole body; each piece of an upload
  std::chrono::milliseconds idle_timeout{75'000};    // between requests of a connection
  std::chrono::milliseconds write_timeout{30'000};   // for the client to take one piece
};

struct HttpServerOptions {
  std::string host = "127.0.0.1";
  int port = 0;  // 0: a free one
  int n_threads = 2;
  std::vector<std::string> origins;  // more CORS origins than the local ones
  HttpLimits limits;
};

class HttpServer {
 public:
  /// Listens at once, so that a bad address or a port in use throws here; `router` and `workers`
  /// must outlive the server. Throws Error.
  HttpServer(const HttpServerOptions& options, const Router& router, WorkerPool& workers);
  /// Stops without grace.
  ~HttpServer();

  int port() const;
  int n_connections() const;

  /// Accepts nothing new, lets requests in progress finish for up to `grace`, then closes every
  /// connection (which cancels its request). Returns when all are gone.
  void stop(std::chrono::milliseconds grace);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsctl::commands::serve
