// A small HTTP/1.1 server on loopback whose handler decides about every answer, faults included:
// cut connections, stalls, slow drips, flipped bits, wrong ranges. Plain sockets and threads; calls
// nothing of Catch2, since its handlers run on its own threads.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace dsctl::tests {

/// What a client asked.
struct ServedRequest {
  std::string method;
  std::string path;                            // decoded, without the query
  std::map<std::string, std::string> query;    // decoded
  std::map<std::string, std::string> headers;  // names in lower case
  std::string body;
  size_t connection_idx = 0;  // counted from 0 in order of arrival

  /// A header, or empty.
  std::string header(const std::string& name) const;
  /// "Range: bytes=A-B" as [A, B + 1), "bytes=A-" with -1 as end.
  std::optional<std::pair<int64_t, int64_t>> range() const;
};

/// What it gets.
struct ServedReply {
  int status = 200;
  std::vector<std::string> headers;            // "Name: value"; Content-Length is added
  std::string body;                            // unless `content` is given
  std::shared_ptr<const std::string> content;  // [content_begin, content_end) is sent
  int64_t content_begin = 0;
  int64_t content_end = 0;

  int64_t cut_after = -1;        // body bytes, then the connection is closed
  int64_t stall_after = -1;      // body bytes, then nothing more comes
  int64_t flip_at = -1;          // the byte of the body whose lowest bit is wrong
  int64_t bytes_per_second = 0;  // of this answer alone; 0: as fast as it goes
  int delay_ms = 0;              // before the first byte
  bool says_length = true;       // without: the end of the connection is the end of the body
};

class HttpServer {
 public:
  using Handler = std::function<ServedReply(const ServedRequest&)>;

  /// Listens at once on a port of the system's choice. `handler` is called from many threads.
  explicit HttpServer(Handler handler, const std::string& address = "127.0.0.1");
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }
  std::string url(const std::string& path) const;
  /// Limits all answers together. 0: no limit.
  void set_bytes_per_second(int64_t bytes_per_second) { bytes_per_second_ = bytes_per_second; }

  std::vector<ServedRequest> requests() const;
  size_t n_requests() const;
  size_t n_connections() const { return n_connections_; }
  /// Body bytes handed to the system so far.
  int64_t body_bytes() const { return body_bytes_; }

 private:
  void accept_loop();
  void serve(int fd, size_t connection_idx);
  bool answer(int fd, const ServedRequest& request, const ServedReply& reply);
  bool send_body(int fd, std::string_view body, const ServedReply& reply);
  void pace(int64_t n_bytes, int64_t bytes_per_second, std::chrono::steady_clock::time_point begin);
  void share_rate(int64_t n_bytes);
  bool wait(int64_t microseconds);

  Handler handler_;
  std::string address_;
  int listener_ = -1;
  int port_ = 0;
  std::atomic<bool> stopping_{false};
  std::atomic<int64_t> bytes_per_second_{0};
  std::atomic<int64_t> body_bytes_{0};
  std::atomic<size_t> n_connections_{0};
  mutable std::mutex mutex_;
  std::vector<ServedRequest> requests_;
  std::vector<int> open_fds_;
  std::chrono::steady_clock::time_point shared_free_at_{};
  std::vector<std::thread> threads_;
  std::thread acceptor_;
};

/// A file as an honest server gives it: whole, or the range asked for; 416 beyond the end.
ServedReply serve_content(const ServedRequest& request, std::shared_ptr<const std::string> content,
                          const std::string& etag = "");

/// `n` bytes that look like nothing, the same for the same seed.
std::shared_ptr<const std::string> random_content(size_t n, uint64_t seed);

}  // namespace dsctl::tests
