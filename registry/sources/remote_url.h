// Url: the parts of what a user or a server wrote as a URL, file: and ssh: included, which the
// sources tell apart before anything is asked of it (requests themselves: registry/url.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::registry {

struct Url {
  std::string scheme;  // lower case
  std::string user;    // percent-decoded, as is password
  std::string password;
  std::string host;   // lower case; an IPv6 address keeps its brackets
  std::string port;   // digits, or empty
  std::string path;   // as written, from the first '/'; may be empty
  std::string query;  // without '?'

  /// Nothing when `text` is no "scheme://host..." or has characters that no URL has.
  static std::optional<Url> parse(std::string_view text);

  std::string origin() const;     // "scheme://host[:port]", port only where it was written
  std::string host_port() const;  // "host[:port]"
};

/// `text` with %XX decoded; a malformed escape stays as it is.
std::string percent_decoded(std::string_view text);

/// localhost, 127.0.0.0/8 or ::1, by its written form.
bool is_loopback_host(std::string_view host);

/// "Name: value" when both are fit for a request's header, or nothing.
std::optional<std::string> header_line(std::string_view name, std::string_view value);

/// The value of an environment variable; empty when it is not set.
std::string environment_value(const char* name);

}  // namespace dsctl::registry
