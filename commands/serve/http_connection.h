// Connection: one client's socket, from accept to close, request after request. Everything but the
// Exchange runs on the connection's strand. Included by http_server.cpp and http_connection.cpp
// only.
#pragma once

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "commands/serve/http_server.h"

namespace dsctl::commands::serve {

class Connection;
class ConnectionExchange;

/// What connections share: the rules, and the list by which the server can close them.
struct ConnectionContext {
  ConnectionContext(const HttpServerOptions& server_options, const Router& server_router,
                    WorkerPool& server_workers)
      : options(server_options), router(server_router), workers(server_workers) {}

  // Shared, because the answer of a request may outlive the server and holds a socket of it.
  boost::asio::io_context io;
  HttpServerOptions options;
  const Router& router;
  WorkerPool& workers;
  bool check_host = true;  // bound to loopback: see host_allowed
  std::string hostname;
  std::atomic<uint64_t> next_request_id{1};
  std::atomic<int> n_connections{0};
  std::atomic<bool> stopping{false};
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<ConnectionContext> context);
  ~Connection();

  void start();
  /// Closes as soon as no request is in progress; thread-safe.
  void close_when_idle();
  /// Closes now; thread-safe.
  void close_now();

 private:
  friend class ConnectionExchange;
  enum class State { kIdle, kHeader, kBody, kHandling, kLingering, kClosed };
  using ErrorCode = boost::system::error_code;

  void wait_for_request();
  void read_some();
  void on_read(ErrorCode error, size_t n_bytes);
  void read_header();
  void on_header(ErrorCode error);
  bool admit();
  bool answer_preflight(std::string_view origin);
  void send_continue_then_body();
  void read_body();
  void on_body(ErrorCode error);
  void begin_upload(UploadHandler handler);
  void read_upload(std::shared_ptr<BodySink> sink);
  void on_upload(ErrorCode error, std::shared_ptr<BodySink> sink);
  void dispatch(const Handler& handler);
  void refuse(int status, const std::string& message);
  void begin_exchange();

  void queue_response(HttpResponse response);
  void queue_stream_head(const std::string& content_type);
  void queue_chunk(std::string data);
  void queue_end();
  void queue_bytes(std::string bytes);
  std::string head(int status, std::string_view content_type,
                   const std::vector<std::pair<std::string, std::string>>& headers) const;
  void write_next();
  void on_written(ErrorCode error, size_t n_bytes);
  void finish_request();
  void peer_closed();
  void linger();
  void drain();
  void shut_down();
  void set_deadline(std::chrono::milliseconds timeout);
  void on_deadline();
  void log_request(std::string_view note) const;

  std::shared_ptr<ConnectionContext> context_;
  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer timer_;
  boost::beast::flat_buffer buffer_;
  std::string upload_buffer_;
  template <typename Body>
  using Parser = std::optional<boost::beast::http::request_parser<Body>>;
  Parser<boost::beast::http::empty_body> header_parser_;
  Parser<boost::beast::http::string_body> body_parser_;
  Parser<boost::beast::http::buffer_body> upload_parser_;

  State state_ = State::kIdle;
  bool reading_ = false;
  bool writing_ = false;
  bool close_after_ = false;  // this answer is the last
  uint64_t deadline_id_ = 0;  // of the newest deadline; older ones are ignored

  const Route* route_ = nullptr;
  HttpRequest request_;
  std::string remote_;
  std::string cors_origin_;
  bool is_head_ = false;
  bool keep_alive_ = false;
  bool http_1_0_ = false;

  std::weak_ptr<ConnectionExchange> exchange_;
  /// Of an upload, while its body arrives: nobody else holds it then.
  std::shared_ptr<ConnectionExchange> upload_exchange_;
  bool answered_ = false;  // a head was queued
  bool chunked_ = false;   // of the stream in progress
  bool complete_ = false;  // the last byte was queued
  int status_ = 0;
  int64_t sent_bytes_ = 0;  // of the answer's body
  std::deque<std::string> out_;
  std::string in_flight_;
};

}  // namespace dsctl::commands::serve
