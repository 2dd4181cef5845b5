#include "commands/serve/client.h"

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/buffer_body.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <optional>
#include <utility>

#include "commands/error.h"

namespace dsctl::commands::serve {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr auto kInterruptPoll = std::chrono::milliseconds(50);
constexpr auto kConnectTimeout = std::chrono::milliseconds(3000);
constexpr size_t kReadBytes = 16u << 10;
constexpr size_t kMaxBodyBytes = 256u << 20;

// Where a client goes that was told the address a server listens on.
std::string reachable(const std::string& host) {
  if (host == "0.0.0.0") return "127.0.0.1";
  if (host == "::") return "::1";
  return host;
}

// One connection whose operations can be given up: each is started and then waited for in slices.
class Connection {
 public:
  explicit Connection(const std::function<bool()>& interrupted)
      : socket_(io_), interrupted_(interrupted) {}

  bool connect(const std::string& host, int port, std::chrono::milliseconds timeout) {
    tcp::resolver resolver(io_);
    ErrorCode error;
    const auto endpoints = resolver.resolve(host, std::to_string(port), error);
    if (error) return false;
    const auto deadline = std::chrono::steady_clock::now() + timeout;
    bool connected = false;
    asio::async_connect(socket_, endpoints, [&](ErrorCode result, const tcp::endpoint&) {
      error = result;
      connected = true;
    });
    io_.restart();
    while (!connected && std::chrono::steady_clock::now() < deadline && !interrupted_())
      io_.run_for(kInterruptPoll);
    if (!connected) close();
    return connected && !error && socket_.is_open();
  }

  // False when interrupted.
  bool write(const std::string& bytes) {
    std::optional<ErrorCode> result;
    asio::async_write(socket_, asio::buffer(bytes),
                      [&result](ErrorCode error, size_t) { result = error; });
    if (!wait(result)) return false;
    if (*result) throw Error("server: " + result->message());
    return true;
  }

  template <typename Start>
  bool read(Start start, ErrorCode& error) {
    std::optional<ErrorCode> result;
    start(socket_, [&result](ErrorCode outcome, size_t) { result = outcome; });
    if (!wait(result)) return false;
    error = *result;
    return true;
  }

 private:
  bool wait(const std::optional<ErrorCode>& result) {
    io_.restart();
    while (!result) {
      if (interrupted_()) {
        close();
        return false;
      }
      io_.run_for(kInterruptPoll);
      io_.restart();
    }
    return true;
  }
  void close() {
    ErrorCode ignored;
    socket_.close(ignored);
    io_.restart();
    io_.run();  // the handlers of what was given up
  }

  asio::io_context io_;
  tcp::socket socket_;
  const std::function<bool()>& interrupted_;
};

void pass_lines(std::string& pending, const std::function<void(std::string_view)>& on_line) {
  size_t begin = 0;
  for (size_t end = 0; (end = pending.find('\n', begin)) != std::string::npos; begin = end + 1)
    on_line(std::string_view(pending).substr(begin, end - begin));
  pending.erase(0, begin);
}

}  // namespace

HttpClient::HttpClient(std::string host, int port) : host_(reachable(host)), port_(port) {}

std::string HttpClient::url() const {
  const bool v6 = host_.find(':') != std::string::npos;
  return "http://" + (v6 ? "[" + host_ + "]" : host_) + ":" + std::to_string(port_);
}

bool HttpClient::is_up(std::chrono::milliseconds timeout) const {
  const std::function<bool()> never = [] { return false; };
  Connection connection(never);
  return connection.connect(host_, port_, timeout);
}

ClientResponse HttpClient::request(std::string_view method, std::string_view path,
                                   std::string body) const {
  return stream(method, path, std::move(body), nullptr, [] { return false; });
}

ClientResponse HttpClient::stream(std::string_view method, std::string_view path, std::string body,
                                  const std::function<void(std::string_view)>& on_line,
                                  const std::function<bool()>& interrupted) const {
  Connection connection(interrupted);
  if (!connection.connect(host_, port_, kConnectTimeout)) {
    if (interrupted()) return {};
    throw Error("no server answers at " + url() + ": start one with `dsctl serve`");
  }
  std::string head = std::string(method) + " " + std::string(path) +
                     " HTTP/1.1\r\nHost: " + url().substr(7) +
                     "\r\nConnection: close\r\nUser-Agent: dsctl\r\n";
  if (!body.empty()) {
    head +=
        "Content-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) + "\r\n";
  }
  if (!connection.write(head + "\r\n" + body)) return {};
  boost::beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  if (method == "HEAD") parser.skip(true);
  ErrorCode error;
  const auto read_header = [&](tcp::socket& socket, auto handler) {
    http::async_read_header(socket, buffer, parser, std::move(handler));
  };
  if (!connection.read(read_header, error)) return {};
  if (error) throw Error("server at " + url() + ": " + error.message());
  ClientResponse response{.status = static_cast<int>(parser.get().result_int()), .body = ""};
  std::string chunk(kReadBytes, '\0');
  while (!parser.is_done()) {
    parser.get().body().data = chunk.data();
    parser.get().body().size = chunk.size();
    const auto read_some = [&](tcp::socket& socket, auto handler) {
      http::async_read(socket, buffer, parser, std::move(handler));
    };
    // A piece is wanted as soon as it is there, not when the buffer is full.
    const auto read_piece = [&](tcp::socket& socket, auto handler) {
      http::async_read_some(socket, buffer, parser, std::move(handler));
    };
    const bool alive =
        on_line ? connection.read(read_piece, error) : connection.read(read_some, error);
    if (!alive) return {};
    if (error && error != http::error::need_buffer) {
      throw Error("server at " + url() + ": the answer was cut off: " + error.message());
    }
    response.body.append(chunk.data(), chunk.size() - parser.get().body().size);
    if (response.body.size() > kMaxBodyBytes) throw Error("server: an answer beyond all bounds");
    if (on_line && response.status == 200) pass_lines(response.body, on_line);
  }
  return response;
}

}  // namespace dsctl::commands::serve
