// HTTP as the APIs see it: a request that has arrived whole, and an exchange to answer it through.
// No Boost here: the server behind it is in http_server.cpp and http_connection.cpp.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dsctl::commands::serve {

struct HttpRequest {
  uint64_t id = 0;  // counts requests of this server, for the log
  std::string method;
  std::string path;   // percent-decoded, without the query
  std::string query;  // as sent, without '?'
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
  std::string remote;  // address of the client
  std::chrono::steady_clock::time_point received;

  /// Value of a header, names compared without case; empty when missing.
  std::string_view header(std::string_view name) const;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

/// The answer's side of one request. Every function is thread-safe and returns at once: data is
/// queued, up to a bound, and sent as fast as the client reads. Answer either with respond() or
/// with begin_stream(), write() ..., end_stream(). Dropping the last reference unanswered is a 500.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual void respond(HttpResponse response) = 0;
  virtual void begin_stream(std::string_view content_type) = 0;
  /// False when nobody will read it: the client has gone, or reads so slowly that its queue is
  /// full, in which case the connection is closed.
  virtual bool write(std::string data) = 0;
  virtual void end_stream() = 0;
  /// Calls `on_close` once when the client vanishes before the answer is complete; at once if it
  /// has. Must not block.
  virtual void set_on_close(std::function<void()> on_close) = 0;
  virtual bool closed() const = 0;
};

using Handler = std::function<void(HttpRequest, std::shared_ptr<Exchange>)>;

/// Receives a body that is too large to be held in memory. Called on worker threads, in order.
class BodySink {
 public:
  virtual ~BodySink() = default;
  /// Throws ApiError to refuse the rest.
  virtual void write(std::span<const std::byte> data) = 0;
  /// The body is complete: answers.
  virtual void finish(Exchange& exchange) = 0;
};

/// Decides by the header alone where the body goes; throws ApiError to refuse it.
using UploadHandler = std::function<std::unique_ptr<BodySink>(const HttpRequest&)>;

}  // namespace dsctl::commands::serve
