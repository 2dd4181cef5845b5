#include "commands/serve/http_server.h"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/strand.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "commands/error.h"
#include "commands/serve/http_connection.h"

namespace dsctl::commands::serve {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using ErrorCode = boost::system::error_code;

constexpr auto kAcceptPause = std::chrono::milliseconds(100);
constexpr auto kStopPoll = std::chrono::milliseconds(5);

std::string own_hostname() {
  char name[256] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "";
}

tcp::endpoint resolve(asio::io_context& io, const HttpServerOptions& options) {
  ErrorCode error;
  const auto address = asio::ip::make_address(options.host, error);
  if (!error) return {address, static_cast<uint16_t>(options.port)};
  tcp::resolver resolver(io);
  const auto results = resolver.resolve(options.host, std::to_string(options.port),
                                        tcp::resolver::numeric_service, error);
  if (error || results.empty()) {
    throw Error("host \"" + options.host + "\": " + error.message());
  }
  return results.begin()->endpoint();
}

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpServerOptions& options, const Router& router, WorkerPool& workers)
      : context_(std::make_shared<ConnectionContext>(options, router, workers)),
        io_(context_->io),
        acceptor_strand_(asio::make_strand(io_)),
        acceptor_(acceptor_strand_),
        accept_timer_(acceptor_strand_),
        work_(asio::make_work_guard(io_)) {
    listen(resolve(io_, options));
    context_->hostname = own_hostname();
    context_->check_host = acceptor_.local_endpoint().address().is_loopback();
    asio::post(acceptor_strand_, [this] { accept(); });
    for (int i = 0; i < std::max(1, options.n_threads); ++i)
      threads_.emplace_back([this] { io_.run(); });
  }

  ~Impl() {
    stop(std::chrono::milliseconds(0));
    io_.stop();
    for (std::thread& thread : threads_)
      thread.join();
  }

  int port() const { return acceptor_port_; }
  int n_connections() const { return context_->n_connections; }

  void stop(std::chrono::milliseconds grace) {
    context_->stopping = true;
    asio::post(acceptor_strand_, [this] {
      ErrorCode ignored;
      acceptor_.close(ignored);
      accept_timer_.cancel();
    });
    for_each_connection([](Connection& connection) { connection.close_when_idle(); });
    const auto deadline = std::chrono::steady_clock::now() + grace;
    while (n_connections() > 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(kStopPoll);
    // What is left is cut off; it must still be told, so that its generations are cancelled.
    const auto hard_deadline = std::chrono::steady_clock::now() + std::chrono::seconds(2);
    for_each_connection([](Connection& connection) { connection.close_now(); });
    while (n_connections() > 0 && std::chrono::steady_clock::now() < hard_deadline)
      std::this_thread::sleep_for(kStopPoll);
  }

 private:
  void listen(const tcp::endpoint& endpoint) {
    ErrorCode error;
    acceptor_.open(endpoint.protocol(), error);
    if (!error) acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
    if (!error) acceptor_.bind(endpoint, error);
    if (!error) acceptor_.listen(asio::socket_base::max_listen_connections, error);
    if (error) {
      throw Error("cannot listen on " + endpoint.address().to_string() + ":" +
                  std::to_string(endpoint.port()) + ": " + error.message() +
                  (error == asio::error::address_in_use
                       ? ": another server runs there; stop it or choose another --port"
                       : ""));
    }
    acceptor_port_ = acceptor_.local_endpoint().port();
  }

  void accept() {
    acceptor_.async_accept(asio::make_strand(io_), [this](ErrorCode error, tcp::socket socket) {
      if (error == asio::error::operation_aborted || context_->stopping) return;
      if (error) {
        // Out of file descriptors, most likely: wait until some connection ends.
        spdlog::warn("accept: {}", error.message());
        accept_timer_.expires_after(kAcceptPause);
        accept_timer_.async_wait([this](ErrorCode cancelled) {
          if (!cancelled) accept();
        });
        return;
      }
      take(std::move(socket));
      accept();
    });
  }

  void take(tcp::socket socket) {
    if (context_->n_connections >= context_->options.limits.max_connections) {
      static constexpr char kBusy[] =
          "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
          "Content-Type: application/json\r\nContent-Length: 33\r\n\r\n"
          "{\"error\":\"too many connections\"}\n";
      ErrorCode ignored;
      socket.non_blocking(true, ignored);
      socket.write_some(asio::buffer(kBusy, sizeof(kBusy) - 1), ignored);
      return;
    }
    ++context_->n_connections;
    auto connection = std::make_shared<Connection>(std::move(socket), context_);
    {
      const std::lock_guard lock(mutex_);
      std::erase_if(connections_, [](const auto& weak) { return weak.expired(); });
      connections_.push_back(connection);
    }
    connection->start();
  }

  template <typename Function>
  void for_each_connection(Function function) {
    std::vector<std::shared_ptr<Connection>> alive;
    {
      const std::lock_guard lock(mutex_);
      for (const auto& weak : connections_) {
        if (auto connection = weak.lock()) alive.push_back(std::move(connection));
      }
    }
    for (const auto& connection : alive)
      function(*connection);
  }

  std::shared_ptr<ConnectionContext> context_;
  asio::io_context& io_;
  asio::strand<asio::io_context::executor_type> acceptor_strand_;
  tcp::acceptor acceptor_;
  asio::steady_timer accept_timer_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  int acceptor_port_ = 0;
  std::mutex mutex_;
  std::vector<std::weak_ptr<Connection>> connections_;
  std::vector<std::thread> threads_;
};

HttpServer::HttpServer(const HttpServerOptions& options, const Router& router, WorkerPool& workers)
    : impl_(std::make_unique<Impl>(options, router, workers)) {}

HttpServer::~HttpServer() = default;

int HttpServer::port() const {
  return impl_->port();
}

int HttpServer::n_connections() const {
  return impl_->n_connections();
}

void HttpServer::stop(std::chrono::milliseconds grace) {
  impl_->stop(grace);
}

}  // namespace dsctl::commands::serve
