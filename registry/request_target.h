// RequestTarget: where a request goes next, and what of it may travel there. The one place that
// decides about redirects.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "registry/url.h"

namespace dsctl::registry {

struct RequestTarget {
  std::string url;  // without user info
  Origin origin;
  std::optional<std::pair<std::string, std::string>> user_password;  // from the URL's user info
  std::vector<std::string> headers;                                  // "Name: value"
  bool refuses_private_peer = false;  // the redirect came from a public host

  /// Throws Error when `url` is no http(s) URL or a header holds a line break.
  static RequestTarget of(std::string_view url, std::vector<std::string> headers);

  /// The target of a redirect to `location`. To another origin only headers that can't hold a
  /// secret go along (Accept, Content-Type, Range, ...); user info in `location` is dropped. Throws
  /// Error on another scheme than http(s), from https to http, and, where the redirecting host
  /// `is_public`, to a host that is private by its name; by its address is for the connection to
  /// find out (refuses_private_peer).
  RequestTarget redirected(std::string_view location, bool is_public) const;
};

/// Whether `status` redirects: 301, 302, 303, 307 or 308.
bool is_redirect_status(int status);

}  // namespace dsctl::registry
