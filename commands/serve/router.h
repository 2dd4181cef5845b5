// Router: which handler answers which method and path, and who may ask at all (the Host check
// against DNS rebinding, CORS).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/serve/http.h"

namespace dsctl::commands::serve {

inline constexpr size_t kMaxBodyBytes = 32u << 20;

struct Route {
  std::string method;
  std::string path;  // a final "*" takes the rest, slashes too
  Handler handler;   // exactly one of the two is set
  UploadHandler upload;
  size_t max_body_bytes = kMaxBodyBytes;
};

class Router {
 public:
  void add(std::string method, std::string path, Handler handler);
  void add_upload(std::string path, UploadHandler upload);

  /// The route of a request. A GET route answers HEAD as well. Throws ApiError 404 for an unknown
  /// path, MethodError for a known path with another method.
  const Route& find(std::string_view method, std::string_view path) const;

  /// Methods that `path` knows: "GET, HEAD, POST".
  std::string allowed_methods(std::string_view path) const;

 private:
  std::vector<Route> routes_;
};

/// True when a loopback server should answer a request that came under this Host: an address that
/// is loopback or private, localhost, or a local name. A browser that was led to 127.0.0.1 under an
/// attacker's name is refused.
bool host_allowed(std::string_view host_header, std::string_view own_hostname);

/// True when pages of this Origin may read answers: local pages, desktop apps, and `extra` (exact,
/// or with "*" for any run of characters).
bool origin_allowed(std::string_view origin, const std::vector<std::string>& extra);

/// Decodes %XX; nothing for a malformed or NUL escape.
std::optional<std::string> percent_decode(std::string_view text);

}  // namespace dsctl::commands::serve
