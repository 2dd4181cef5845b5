// libcurl's handles with our rules on them: one transfer (an easy handle that is used again and
// again, so that connections and TLS sessions live on) and the set of transfers that one thread
// drives. Only the registry's network code includes this.
#pragma once

#include <curl/curl.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "registry/http.h"
#include "registry/http_headers.h"
#include "registry/request_target.h"

namespace dsctl::registry {

/// One HTTP exchange at a time. Follows no redirect, retries nothing.
class CurlTransfer {
 public:
  /// What to ask for, beside the target.
  struct Request {
    std::string method = "GET";
    std::string body;
    std::string range;  // "0-99", or empty
    long http_version = CURL_HTTP_VERSION_2TLS;
    long buffer_bytes = 64 << 10;
  };
  /// Takes body bytes, returns how many: fewer ends the transfer, CURL_WRITEFUNC_PAUSE pauses it.
  using Sink = std::function<size_t(std::span<const std::byte>)>;

  explicit CurlTransfer(const HttpOptions& options);
  ~CurlTransfer();
  CurlTransfer(const CurlTransfer&) = delete;
  CurlTransfer& operator=(const CurlTransfer&) = delete;

  /// Sets the handle up. It runs once it is added to a CurlSet.
  void prepare(const RequestTarget& target, const Request& request, Sink sink);

  CURL* handle() const { return handle_; }
  const ResponseHead& head() const { return head_; }
  ResponseHead& head() { return head_; }
  /// Whether the host that answered is a public one (by name where a proxy stood between).
  bool peer_is_public() const;
  /// What went wrong, for people: "<url>: <reason>".
  std::string describe(CURLcode code) const;
  /// Whether repeating the request can't help: broken TLS, a refused address, headers too long.
  bool is_hopeless(CURLcode code) const;

 private:
  static size_t on_header(char* data, size_t size, size_t count, void* self);
  static size_t on_body(char* data, size_t size, size_t count, void* self);
  static int on_connected(void* self, char* peer_ip, char* local_ip, int peer_port, int local_port);
  void renew();
  bool through_proxy(int peer_port) const;

  HttpOptions options_;
  CURL* handle_ = nullptr;
  curl_slist* headers_ = nullptr;
  char error_[CURL_ERROR_SIZE] = {};
  std::string url_;
  Origin origin_;
  bool refuses_private_peer_ = false;
  std::string refused_peer_;
  bool head_too_large_ = false;
  ResponseHead head_;
  Sink sink_;
};

/// The transfers of one thread; keeps their connections alive.
class CurlSet {
 public:
  explicit CurlSet(long max_idle_connections = 8);
  ~CurlSet();
  CurlSet(const CurlSet&) = delete;
  CurlSet& operator=(const CurlSet&) = delete;

  /// `data` is given back by next_done.
  void add(CurlTransfer& transfer, void* data);
  void remove(CurlTransfer& transfer);
  /// Moves bytes; calls sinks.
  void perform();
  /// Waits for sockets, wake(), or the time to pass.
  void wait(int timeout_ms);
  /// Ends a wait; from any thread.
  void wake();

  struct Done {
    void* data = nullptr;
    CURLcode code = CURLE_OK;
  };
  /// A transfer that has ended, or nothing. It stays in the set until removed.
  std::optional<Done> next_done();

 private:
  CURLM* handle_ = nullptr;
};

}  // namespace dsctl::registry
