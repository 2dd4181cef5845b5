// URLs as the registry needs them: what may be shown of one, where a reference leads, which host it
// names and whether that host lies inside a private network. Parsing is libcurl's, so that the
// request goes exactly where the check looked.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace dsctl::registry {

/// Whom a URL talks to. Credentials stay within one origin.
struct Origin {
  std::string scheme;  // lower case
  std::string host;    // lower case; IPv6 without brackets
  int port = 0;        // the scheme's own where the URL has none
  bool operator==(const Origin&) const = default;
};

/// A URL without its user info, and that user info, decoded.
struct SplitUrl {
  std::string url;  // without user info and fragment
  Origin origin;
  std::optional<std::pair<std::string, std::string>> user_password;
};

/// Takes `url` apart. Throws Error unless it is an absolute http or https URL of at most 16 KiB.
SplitUrl split_url(std::string_view url);

/// `url` without user info, query and fragment: what may be shown.
std::string printable_url(std::string_view url);
/// `text` with everything but unreserved characters as %XX; `keep` are left as they are.
std::string percent_encode(std::string_view text, std::string_view keep = "");
/// `reference` seen from `base` (RFC 3986). Throws Error when the two make no URL.
std::string resolve_url(std::string_view base, std::string_view reference);

/// Whether `address` (textual IPv4 or IPv6) is loopback, private, link-local, shared, multicast or
/// unspecified. False for anything that is no address.
bool is_private_address(std::string_view address);
/// Whether `host` says by itself that it is no public host: such an address, or "localhost".
bool is_private_host(std::string_view host);

}  // namespace dsctl::registry
