#include "commands/serve/http_connection.h"

#include <spdlog/spdlog.h>

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/dispatch.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <utility>

#include "commands/serve/api_error.h"

namespace dsctl::commands::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

// Bytes of the next requests that are read while one is answered, so that a client that closes is
// noticed; a client that sends more than that is not watched any longer.
constexpr size_t kMaxPipelinedBytes = 64u << 10;
constexpr size_t kReadBytes = 16u << 10;
constexpr size_t kUploadBytes = 1u << 20;
constexpr size_t kMaxWriteBytes = 256u << 10;
constexpr auto kLingerTimeout = std::chrono::milliseconds(1000);

std::string hex(size_t value) {
  char buffer[20];
  std::snprintf(buffer, sizeof(buffer), "%zx", value);
  return buffer;
}

}  // namespace

/// The Exchange of one request: forwards to the connection's strand and counts what is queued
/// there.
class ConnectionExchange final : public Exchange {
 public:
  explicit ConnectionExchange(std::shared_ptr<Connection> connection)
      : connection_(std::move(connection)),
        max_queued_bytes_(connection_->context_->options.limits.max_queued_bytes) {}

  ~ConnectionExchange() override {
    if (!answered_) {
      on_strand([](Connection& connection) {
        if (!connection.answered_) connection.refuse(500, "request dropped without an answer");
      });
    } else if (streaming_ && !ended_) {
      connection_->close_now();  // the client must not take half an answer for a whole one
    }
  }

  void respond(HttpResponse response) override {
    if (answered_.exchange(true)) return;
    on_strand([response = std::move(response)](Connection& connection) mutable {
      connection.queue_response(std::move(response));
    });
  }

  void begin_stream(std::string_view content_type) override {
    if (answered_.exchange(true)) return;
    streaming_ = true;
    on_strand([type = std::string(content_type)](Connection& connection) {
      connection.queue_stream_head(type);
    });
  }

  bool write(std::string data) override {
    if (closed_) return false;
    if (data.empty()) return true;
    if (queued_bytes_.fetch_add(data.size()) + data.size() > max_queued_bytes_) {
      spdlog::warn("client {} reads too slowly: closing its connection", connection_->remote_);
      connection_->close_now();
      return false;
    }
    on_strand([data = std::move(data)](Connection& connection) mutable {
      connection.queue_chunk(std::move(data));
    });
    return true;
  }

  void end_stream() override {
    if (ended_.exchange(true)) return;
    on_strand([](Connection& connection) { connection.queue_end(); });
  }

  void set_on_close(std::function<void()> on_close) override {
    bool call = false;
    {
      const std::lock_guard lock(mutex_);
      call = closed_ && !complete_;
      if (!call) on_close_ = std::move(on_close);
    }
    if (call) on_close();
  }

  bool closed() const override { return closed_; }

  // From the connection's strand: the client has gone, or the answer is out.
  void connection_closed() {
    std::function<void()> on_close;
    {
      const std::lock_guard lock(mutex_);
      if (closed_.exchange(true)) return;
      on_close = std::exchange(on_close_, nullptr);
    }
    if (on_close) on_close();
  }

  void answer_complete() {
    std::function<void()> dropped;  // what it captured may hold this exchange
    const std::lock_guard lock(mutex_);
    complete_ = true;
    closed_ = true;
    dropped = std::exchange(on_close_, nullptr);
  }

  void bytes_written(size_t n_bytes) {
    // Framing is counted when it is written but not when it is queued.
    size_t queued = queued_bytes_.load();
    while (!queued_bytes_.compare_exchange_weak(queued, queued - std::min(queued, n_bytes))) {
    }
  }

 private:
  template <typename Function>
  void on_strand(Function function) {
    asio::post(connection_->socket_.get_executor(),
               [connection = connection_, function = std::move(function)]() mutable {
                 if (connection->state_ != Connection::State::kClosed) function(*connection);
               });
  }

  std::shared_ptr<Connection> connection_;
  const size_t max_queued_bytes_;
  std::atomic<size_t> queued_bytes_{0};
  std::atomic<bool> answered_{false};
  std::atomic<bool> streaming_{false};
  std::atomic<bool> ended_{false};
  std::atomic<bool> closed_{false};
  std::mutex mutex_;
  bool complete_ = false;
  std::function<void()> on_close_;
};

Connection::Connection(asio::ip::tcp::socket socket, std::shared_ptr<ConnectionContext> context)
    : context_(std::move(context)),
      socket_(std::move(socket)),
      timer_(socket_.get_executor()),
      buffer_(std::max(kMaxPipelinedBytes, context_->options.limits.max_header_bytes) +
              kReadBytes) {
  ErrorCode ignored;
  const auto endpoint = socket_.remote_endpoint(ignored);
  if (!ignored) remote_ = endpoint.address().to_string();
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
}

Connection::~Connection() {
  --context_->n_connections;
}

void Connection::start() {
  asio::dispatch(socket_.get_executor(), [self = shared_from_this()] { self->wait_for_request(); });
}

void Connection::close_when_idle() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] {
    self->close_after_ = true;
    if (self->state_ == State::kIdle) self->shut_down();
  });
}

void Connection::close_now() {
  asio::post(socket_.get_executor(), [self = shared_from_this()] { self->shut_down(); });
}

// -- reading ------------------------------------------------------------------------------------

void Connection::wait_for_request() {
  state_ = State::kIdle;
  if (context_->stopping) {
    shut_down();
    return;
  }
  set_deadline(context_->options.limits.idle_timeout);
  if (reading_) {
    // The read that watched the client is still there; with data at hand it must make room.
    if (buffer_.size() > 0) {
      ErrorCode ignored;
      socket_.cancel(ignored);
    }
    return;
  }
  if (buffer_.size() > 0) {
    read_header();
  } else {
    read_some();
  }
}

void Connection::read_some() {
  if (reading_ || state_ == State::kClosed || buffer_.size() >= kMaxPipelinedBytes) return;
  reading_ = true;
  socket_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](ErrorCode error, size_t n_bytes) {
                            self->on_read(error, n_bytes);
                          });
}

void Connection::on_read(ErrorCode error, size_t n_bytes) {
  reading_ = false;
  buffer_.commit(n_bytes);
  if (state_ == State::kClosed) return;
  if (error == asio::error::eof && state_ == State::kHandling) {
    peer_closed();
    return;
  }
  if (error && error != asio::error::operation_aborted) {
    shut_down();
    return;
  }
  if (state_ == State::kIdle) {
    if (buffer_.size() > 0) {
      read_header();
    } else {
      read_some();
    }
  } else if (state_ == State::kHandling) {
    read_some();
  }
}

void Connection::read_header() {
  state_ = State::kHeader;
  request_ = {};
  request_.id = context_->next_request_id++;
  request_.remote = remote_;
  request_.received = std::chrono::steady_clock::now();
  cors_origin_.clear();
  route_ = nullptr;
  is_head_ = keep_alive_ = http_1_0_ = answered_ = complete_ = chunked_ = false;
  status_ = 0;
  sent_bytes_ = 0;
  body_parser_.reset();
  upload_parser_.reset();
  header_parser_.emplace();
  header_parser_->header_limit(static_cast<uint32_t>(context_->options.limits.max_header_bytes));
  header_parser_->body_limit(boost::none);
  set_deadline(context_->options.limits.header_timeout);
  http::async_read_header(
      socket_, buffer_, *header_parser_,
      [self = shared_from_this()](ErrorCode error, size_t) { self->on_header(error); });
}

void Connection::on_header(ErrorCode error) {
  if (state_ != State::kHeader) return;
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    refuse(431, "request header larger than " +
                    std::to_string(context_->options.limits.max_header_bytes) + " bytes");
    return;
  }
  if (error == http::error::end_of_stream || error == http::error::partial_message) {
    shut_down();
    return;
  }
  if (error && error.category() == http::make_error_code(http::error::bad_method).category()) {
    refuse(400, "malformed HTTP request: " + error.message());
    return;
  }
  if (error) {
    shut_down();
    return;
  }
  if (!admit()) return;
  if (route_->upload) {
    begin_upload(route_->upload);
  } else {
    send_continue_then_body();
  }
}

// Everything that can be decided by the header alone. False: answered.
bool Connection::admit() {
  const auto& message = header_parser_->get();
  request_.method = std::string(message.method_string());
  is_head_ = request_.method == "HEAD";
  http_1_0_ = message.version() < 11;
  keep_alive_ = message.keep_alive();
  for (const auto& field : message) {
    request_.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  }
  std::string_view target = message.target();
  if (target.starts_with("http://")) {  // absolute form, as proxies send it
    const size_t slash = target.find('/', 7);
    target = slash == std::string_view::npos ? std::string_view("/") : target.substr(slash);
  }
  const size_t question = target.find('?');
  if (question != std::string_view::npos) request_.query = std::string(target.substr(question + 1));
  const auto path = percent_decode(target.substr(0, question));
  if (!path || (!path->starts_with('/') && *path != "*")) {
    refuse(400, "malformed request path");
    return false;
  }
  request_.path = *path;
  if (context_->check_host && !host_allowed(request_.header("host"), context_->hostname)) {
    begin_exchange();
    close_after_ = true;
    queue_response({.status = 403, .content_type = "", .body = "", .headers = {}});
    return false;
  }
  const std::string origin(request_.header("origin"));
  if (!origin.empty()) {
    if (!origin_allowed(origin, context_->options.origins)) {
      begin_exchange();
      close_after_ = true;
      queue_response({.status = 403, .content_type = "", .body = "", .headers = {}});
      return false;
    }
    cors_origin_ = origin;
  }
  if (request_.method == "OPTIONS") return answer_preflight(origin);
  try {
    route_ = &context_->router.find(request_.method, request_.path);
  } catch (const ApiError& error) {
    begin_exchange();
    HttpResponse response = error_response(error_form(request_.path), error);
    if (error.status() == 405) {
      response.headers.emplace_back("Allow", context_->router.allowed_methods(request_.path));
    }
    // An unread body would be taken for the next request.
    if (!header_parser_->is_done()) close_after_ = true;
    queue_response(std::move(response));
    return false;
  }
  const std::string_view encoding = request_.header("content-encoding");
  if (!encoding.empty() && !boost::beast::iequals(encoding, "identity")) {
    refuse(415, "content encoding \"" + std::string(encoding) + "\" is not supported yet");
    return false;
  }
  const auto length = header_parser_->content_length();
  if (length && *length > route_->max_body_bytes) {
    refuse(413, "request body of " + std::to_string(*length) + " bytes, expected at most " +
                    std::to_string(route_->max_body_bytes));
    return false;
  }
  return true;
}

bool Connection::answer_preflight(std::string_view origin) {
  begin_exchange();
  if (!header_parser_->is_done()) close_after_ = true;
  HttpResponse response{.status = 204, .content_type = "", .body = "", .headers = {}};
  if (!origin.empty()) {
    const std::string_view wanted = request_.header("access-control-request-headers");
    response.headers.emplace_back("Access-Control-Allow-Methods",
                                  "GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS");
    response.headers.emplace_back(
        "Access-Control-Allow-Headers",
        wanted.empty() ? "Authorization, Content-Type, User-Agent, Accept" : std::string(wanted));
    response.headers.emplace_back("Access-Control-Max-Age", "43200");
  }
  queue_response(std::move(response));
  return false;
}

void Connection::send_continue_then_body() {
  state_ = State::kBody;
  set_deadline(context_->options.limits.body_timeout);
  if (boost::beast::iequals(header_parser_->get()[http::field::expect], "100-continue") &&
      !header_parser_->is_done()) {
    in_flight_ = "HTTP/1.1 100 Continue\r\n\r\n";
    asio::async_write(socket_, asio::buffer(in_flight_),
                      [self = shared_from_this()](ErrorCode error, size_t) {
                        if (self->state_ != State::kBody) return;
                        if (error) return self->shut_down();
                        self->read_body();
                      });
    return;
  }
  read_body();
}

void Connection::read_body() {
  body_parser_.emplace(std::move(*header_parser_));
  body_parser_->body_limit(route_->max_body_bytes);
  if (body_parser_->is_done()) {
    on_body({});
    return;
  }
  http::async_read(socket_, buffer_, *body_parser_,
                   [self = shared_from_this()](ErrorCode error, size_t) { self->on_body(error); });
}

void Connection::on_body(ErrorCode error) {
  if (state_ != State::kBody) return;
  if (error == http::error::body_limit) {
    refuse(413, "request body larger than " + std::to_string(route_->max_body_bytes) + " bytes");
    return;
  }
  if (error && error.category() == http::make_error_code(http::error::bad_method).category() &&
      error != http::error::end_of_stream && error != http::error::partial_message) {
    refuse(400, "malformed HTTP request body: " + error.message());
    return;
  }
  if (error) {
    shut_down();
    return;
  }
  request_.body = std::move(body_parser_->get().body());
  dispatch(route_->handler);
}

void Connection::begin_exchange() {
  state_ = State::kHandling;
  upload_exchange_.reset();
  ++deadline_id_;  // from here on only writes have deadlines
}

void Connection::dispatch(const Handler& handler) {
  begin_exchange();
  auto exchange = std::make_shared<ConnectionExchange>(shared_from_this());
  exchange_ = exchange;
  read_some();
  const ErrorForm form = error_form(request_.path);
  context_->workers.post([handler, form, exchange = std::move(exchange), request = request_] {
    try {
      handler(request, exchange);
    } catch (const ApiError& error) {
      exchange->respond(error_response(form, error));
    } catch (const std::exception& error) {
      spdlog::error("request {}: {}", request.id, error.what());
      exchange->respond(error_response(form, ApiError(500, error.what())));
    }
  });
  request_.body.clear();
}

// -- uploads ------------------------------------------------------------------------------------

void Connection::begin_upload(UploadHandler handler) {
  state_ = State::kBody;
  ++deadline_id_;
  auto exchange = std::make_shared<ConnectionExchange>(shared_from_this());
  exchange_ = exchange;
  upload_exchange_ = exchange;
  const ErrorForm form = error_form(request_.path);
  context_->workers.post([self = shared_from_this(), handler = std::move(handler), form, exchange,
                          request = request_] {
    std::shared_ptr<BodySink> sink;
    HttpResponse refusal;
    try {
      sink = handler(request);
    } catch (const ApiError& error) {
      refusal = error_response(form, error);
    } catch (const std::exception& error) {
      refusal = error_response(form, ApiError(500, error.what()));
    }
    asio::post(self->socket_.get_executor(), [self, sink = std::move(sink),
                                              refusal = std::move(refusal), exchange]() mutable {
      if (self->state_ != State::kBody) return;
      if (!sink) {
        self->begin_exchange();
        if (!self->header_parser_->is_done()) self->close_after_ = true;
        exchange->respond(std::move(refusal));
        return;
      }
      const bool expects =
          boost::beast::iequals(self->header_parser_->get()[http::field::expect], "100-continue");
      self->upload_parser_.emplace(std::move(*self->header_parser_));
      self->upload_buffer_.resize(kUploadBytes);
      if (!expects) return self->read_upload(std::move(sink));
      self->in_flight_ = "HTTP/1.1 100 Continue\r\n\r\n";
      asio::async_write(self->socket_, asio::buffer(self->in_flight_),
                        [self, sink = std::move(sink), exchange](ErrorCode error, size_t) {
                          if (error) return self->shut_down();
                          self->read_upload(sink);
                        });
    });
  });
}

void Connection::read_upload(std::shared_ptr<BodySink> sink) {
  if (state_ != State::kBody) return;
  set_deadline(context_->options.limits.body_timeout);
  auto& body = upload_parser_->get().body();
  body.data = upload_buffer_.data();
  body.size = upload_buffer_.size();
  body.more = true;
  if (upload_parser_->is_done()) {
    on_upload({}, std::move(sink));
    return;
  }
  http::async_read(socket_, buffer_, *upload_parser_,
                   [self = shared_from_this(), sink = std::move(sink)](ErrorCode error, size_t) {
                     self->on_upload(error, sink);
                   });
}

void Connection::on_upload(ErrorCode error, std::shared_ptr<BodySink> sink) {
  if (state_ != State::kBody) return;
  if (error == http::error::need_buffer) error = {};
  if (error) {
    shut_down();
    return;
  }
  ++deadline_id_;
  const size_t n_bytes = upload_buffer_.size() - upload_parser_->get().body().size;
  const bool done = upload_parser_->is_done();
  context_->workers.post([self = shared_from_this(), sink = std::move(sink),
                          exchange = upload_exchange_, n_bytes, done,
                          form = error_form(request_.path)] {
    std::optional<HttpResponse> refusal;
    try {
      sink->write(std::as_bytes(std::span(self->upload_buffer_.data(), n_bytes)));
      if (done) sink->finish(*exchange);
    } catch (const ApiError& refused) {
      refusal = error_response(form, refused);
    } catch (const std::exception& failure) {
      refusal = error_response(form, ApiError(500, failure.what()));
    }
    asio::post(self->socket_.get_executor(),
               [self, sink, exchange, done, refusal = std::move(refusal)]() mutable {
                 if (self->state_ != State::kBody) return;
                 if (!done && !refusal) return self->read_upload(std::move(sink));
                 self->begin_exchange();
                 if (!done) self->close_after_ = true;
                 if (refusal) exchange->respond(std::move(*refusal));
               });
  });
}

// -- writing ------------------------------------------------------------------------------------

void Connection::refuse(int status, const std::string& message) {
  begin_exchange();
  close_after_ = true;
  queue_response(error_response(error_form(request_.path), ApiError(status, message)));
}

std::string Connection::head(
    int status, std::string_view content_type,
    const std::vector<std::pair<std::string, std::string>>& headers) const {
  std::string text = http_1_0_ ? "HTTP/1.0 " : "HTTP/1.1 ";
  text += std::to_string(status) + " " +
          std::string(http::obsolete_reason(static_cast<http::status>(status))) + "\r\n";
  text += "Server: dsctl\r\n";
  if (!content_type.empty()) text += "Content-Type: " + std::string(content_type) + "\r\n";
  for (const auto& [name, value] : headers)
    text += name + ": " + value + "\r\n";
  if (!cors_origin_.empty()) {
    text += "Access-Control-Allow-Origin: " + cors_origin_ + "\r\nVary: Origin\r\n";
  }
  text += "X-Request-Id: " + std::to_string(request_.id) + "\r\n";
  if (!keep_alive_ || close_after_) {
    text += "Connection: close\r\n";
  } else if (http_1_0_) {
    text += "Connection: keep-alive\r\n";
  }
  return text;
}

void Connection::queue_response(HttpResponse response) {
  if (answered_) return;
  answered_ = complete_ = true;
  status_ = response.status;
  std::string text = head(response.status, response.content_type, response.headers);
  if (response.status != 204) {
    text += "Content-Length: " + std::to_string(response.body.size()) + "\r\n";
  }
  text += "\r\n";
  if (!is_head_ && response.status != 204) {
    sent_bytes_ = static_cast<int64_t>(response.body.size());
    text += response.body;
  }
  queue_bytes(std::move(text));
}

void Connection::queue_stream_head(const std::string& content_type) {
  if (answered_) return;
  answered_ = true;
  status_ = 200;
  chunked_ = !http_1_0_;
  if (!chunked_) close_after_ = true;
  std::string text = head(200, content_type, {{"Cache-Control", "no-cache"}});
  if (chunked_) text += "Transfer-Encoding: chunked\r\n";
  queue_bytes(text + "\r\n");
}

void Connection::queue_chunk(std::string data) {
  if (complete_ || is_head_) return;
  sent_bytes_ += static_cast<int64_t>(data.size());
  if (chunked_) data = hex(data.size()) + "\r\n" + data + "\r\n";
  queue_bytes(std::move(data));
}

void Connection::queue_end() {
  if (complete_) return;
  complete_ = true;
  queue_bytes(chunked_ && !is_head_ ? "0\r\n\r\n" : "");
}

void Connection::queue_bytes(std::string bytes) {
  if (!bytes.empty()) out_.push_back(std::move(bytes));
  if (!writing_) write_next();
}

void Connection::write_next() {
  if (out_.empty()) {
    if (complete_) finish_request();
    return;
  }
  in_flight_.clear();
  while (!out_.empty() &&
         (in_flight_.empty() || in_flight_.size() + out_.front().size() <= kMaxWriteBytes)) {
    in_flight_ += out_.front();
    out_.pop_front();
  }
  writing_ = true;
  set_deadline(context_->options.limits.write_timeout);
  asio::async_write(socket_, asio::buffer(in_flight_),
                    [self = shared_from_this()](ErrorCode error, size_t n_bytes) {
                      self->on_written(error, n_bytes);
                    });
}

void Connection::on_written(ErrorCode error, size_t n_bytes) {
  writing_ = false;
  if (state_ == State::kClosed) return;
  ++deadline_id_;
  if (error) {
    shut_down();
    return;
  }
  if (const auto exchange = exchange_.lock()) exchange->bytes_written(n_bytes);
  write_next();
}

void Connection::finish_request() {
  log_request("");
  if (const auto exchange = exchange_.lock()) exchange->answer_complete();
  exchange_.reset();
  if (close_after_ || !keep_alive_) {
    linger();
  } else {
    wait_for_request();
  }
}

// The client sends no more. It has gone, most likely, so what is being generated is cancelled; but
// a client that only closed its half still gets the answer to a quick question.
void Connection::peer_closed() {
  close_after_ = true;
  if (const auto exchange = exchange_.lock()) exchange->connection_closed();
}

// Closing with unread data in the socket would reset it and could take the answer away from the
// client: say that we are done, then let the client finish what it was sending, for a while.
void Connection::linger() {
  state_ = State::kLingering;
  ErrorCode ignored;
  socket_.cancel(ignored);
  socket_.shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
  set_deadline(kLingerTimeout);
  drain();
}

void Connection::drain() {
  buffer_.clear();
  socket_.async_read_some(buffer_.prepare(kReadBytes),
                          [self = shared_from_this()](ErrorCode error, size_t) {
                            if (self->state_ != State::kLingering) return;
                            if (error && error != asio::error::operation_aborted) {
                              return self->shut_down();
                            }
                            self->drain();
                          });
}

void Connection::shut_down() {
  if (state_ == State::kClosed) return;
  if (state_ == State::kHandling || state_ == State::kBody) {
    log_request(complete_ ? "" : " (client gone)");
  }
  state_ = State::kClosed;
  ++deadline_id_;
  timer_.cancel();
  ErrorCode ignored;
  socket_.close(ignored);
  if (const auto exchange = exchange_.lock()) exchange->connection_closed();
  exchange_.reset();
  upload_exchange_.reset();
}

// -- time and log -------------------------------------------------------------------------------

void Connection::set_deadline(std::chrono::milliseconds timeout) {
  const uint64_t id = ++deadline_id_;
  timer_.expires_after(timeout);
  timer_.async_wait([weak = weak_from_this(), id](ErrorCode error) {
    const auto self = weak.lock();
    if (error || !self || self->deadline_id_ != id) return;
    self->on_deadline();
  });
}

void Connection::on_deadline() {
  const bool mid_request = state_ == State::kHeader || state_ == State::kBody;
  if (!mid_request || answered_) {
    shut_down();
    return;
  }
  ErrorCode ignored;
  socket_.cancel(ignored);
  refuse(408, "the request did not arrive in time");
}

void Connection::log_request(std::string_view note) const {
  const auto elapsed = std::chrono::steady_clock::now() - request_.received;
  spdlog::info("{} {} {} {} {} bytes {:.1f} ms{}", remote_, request_.method, request_.path, status_,
               sent_bytes_, std::chrono::duration<double, std::milli>(elapsed).count(), note);
}

}  // namespace dsctl::commands::serve
