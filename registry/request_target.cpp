#include "registry/request_target.h"

#include <algorithm>
#include <array>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

/// Names of headers that may follow a redirect to anyone, in lower case.
constexpr std::array<std::string_view, 8> kHarmless{
    "accept",        "accept-encoding", "accept-language", "content-type",
    "if-none-match", "if-range",        "range",           "user-agent"};

bool is_harmless(std::string_view header) {
  std::string name(header.substr(0, header.find(':')));
  std::transform(name.begin(), name.end(), name.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return std::find(kHarmless.begin(), kHarmless.end(), name) != kHarmless.end();
}

}  // namespace

RequestTarget RequestTarget::of(std::string_view url, std::vector<std::string> headers) {
  for (const std::string& header : headers) {
    if (header.find(':') == std::string::npos ||
        header.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
      // The value may be a secret: not shown.
      throw Error(printable_url(url) + ": request header \"" +
                  header.substr(0, header.find_first_of(":\r\n")) +
                  "\" is not of the form \"Name: value\" on one line");
    }
  }
  SplitUrl split = split_url(url);
  RequestTarget target;
  target.url = std::move(split.url);
  target.origin = std::move(split.origin);
  target.user_password = std::move(split.user_password);
  target.headers = std::move(headers);
  return target;
}

RequestTarget RequestTarget::redirected(std::string_view location, bool is_public) const {
  const auto refuse = [&](const std::string& why) {
    throw Error(printable_url(url) + ": redirects to " + printable_url(location.substr(0, 200)) +
                ": refused, " + why);
  };
  SplitUrl split;
  try {
    split = split_url(resolve_url(url, location));
  } catch (const Error&) {
    refuse("only http and https are followed");
  }
  if (origin.scheme == "https" && split.origin.scheme != "https") {
    refuse("it would leave the encrypted connection");
  }
  if (is_public && is_private_host(split.origin.host)) {
    refuse("a public host may not point into a private network");
  }
  RequestTarget target;
  target.url = std::move(split.url);
  target.refuses_private_peer = is_public;
  target.headers = headers;
  if (split.origin == origin) {
    target.user_password = user_password;
  } else {
    std::erase_if(target.headers, [](const std::string& header) { return !is_harmless(header); });
  }
  target.origin = std::move(split.origin);
  return target;
}

bool is_redirect_status(int status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

}  // namespace dsctl::registry
