// HTTP for the registry: one request at a time for small documents, over libcurl. Large files go
// through download.h, which drives many ranged requests at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "registry/url.h"

namespace dsctl::registry {

/// A request for a small document.
struct HttpRequest {
  std::string method = "GET";             // GET, HEAD, POST, PUT, PATCH, DELETE
  std::string url = {};                   // http or https, at most 16 KiB
  std::vector<std::string> headers = {};  // "Name: value", without line breaks
  std::string body = {};
  /// Bytes wanted, both ends included; absent: all. A server may answer 200 with everything.
  std::optional<std::pair<int64_t, int64_t>> range = std::nullopt;
  /// Redirects to follow; 0: the 3xx answer is returned. Nothing that may hold a secret (see
  /// request_target.h) travels to another scheme, host or port.
  int max_redirects = 10;
  size_t max_body_bytes = 32 << 20;  // a longer answer is an error, or cut where `range` is given
  int retries = 5;                   // of network errors, 408, 429 and 5xx; honours Retry-After
};

struct HttpResponse {
  int status = 0;
  std::multimap<std::string, std::string> headers;  // names in lower case
  std::string body;
  std::string url;  // after redirects

  /// The last header called `name` (lower case), or nothing.
  std::optional<std::string_view> header(std::string_view name) const;
};

/// What all requests of one operation share. Proxies come from the environment, as curl reads it.
struct HttpOptions {
  std::string user_agent;  // empty: "dsctl/VERSION"
  int connect_timeout_ms = 15'000;
  int stall_timeout_ms = 30'000;  // no byte for so long ends an attempt
  int first_retry_ms = 500;       // doubled each time, with jitter, up to 30 s
  /// Longest wait that a Retry-After header may ask for. A longer one is cut; HttpClient returns
  /// the answer instead, so that its caller can say how long the server wants to be left alone.
  int max_asked_wait_ms = 120'000;
  std::string ca_file;  // empty: $SSL_CERT_FILE, else the system's
  /// Told before each wait of HttpClient: what failed and how long the wait is.
  std::function<void(const std::string&)> on_retry;
};

/// Keeps connections alive between requests. One thread at a time.
class HttpClient {
 public:
  explicit HttpClient(HttpOptions options = {});
  ~HttpClient();
  HttpClient(const HttpClient&) = delete;
  HttpClient& operator=(const HttpClient&) = delete;

  /// The answer, whatever its status. Throws Error naming the URL (without its query, which may
  /// hold a signature) when no answer came, on a redirect to another scheme than http(s) or from a
  /// public host to a private address, and when `stop` was asked for.
  HttpResponse send(const HttpRequest& request, std::stop_token stop = {});

  const HttpOptions& options() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dsctl::registry
