#include "commands/serve/router.h"

#include <arpa/inet.h>

#include <algorithm>
#include <cctype>
#include <utility>

#include "commands/serve/api_error.h"

namespace dsctl::commands::serve {
namespace {

bool path_matches(const Route& route, std::string_view path) {
  if (!route.path.ends_with('*')) return route.path == path;
  const std::string_view stem(route.path.data(), route.path.size() - 1);
  return path.size() > stem.size() && path.starts_with(stem);
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

// The host of "host:port", "[v6]:port", "v6" or "host".
std::string_view without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return end == std::string_view::npos ? std::string_view() : host.substr(1, end - 1);
  }
  const size_t colon = host.find(':');
  if (colon == std::string_view::npos || host.find(':', colon + 1) != std::string_view::npos) {
    return host;
  }
  return host.substr(0, colon);
}

bool is_private_ipv4(uint32_t address) {
  const uint32_t a = address >> 24;
  const uint32_t b = address >> 16 & 0xff;
  return address == 0 || a == 127 || a == 10 || (a == 172 && b >= 16 && b < 32) ||
         (a == 192 && b == 168) || (a == 169 && b == 254);
}

std::optional<bool> is_local_address(const std::string& host) {
  in_addr v4{};
  if (inet_pton(AF_INET, host.c_str(), &v4) == 1) return is_private_ipv4(ntohl(v4.s_addr));
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return std::nullopt;
  if (IN6_IS_ADDR_LOOPBACK(&v6) || IN6_IS_ADDR_UNSPECIFIED(&v6) || IN6_IS_ADDR_LINKLOCAL(&v6)) {
    return true;
  }
  return (v6.s6_addr[0] & 0xfe) == 0xfc;  // unique local
}

bool glob_matches(std::string_view pattern, std::string_view text) {
  size_t p = 0, t = 0, star = std::string_view::npos, mark = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      mark = t;
    } else if (p < pattern.size() && pattern[p] == text[t]) {
      ++p;
      ++t;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      t = ++mark;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*')
    ++p;
  return p == pattern.size();
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

std::string_view HttpRequest::header(std::string_view name) const {
  const std::string wanted = lower(name);
  for (const auto& [key, value] : headers) {
    if (lower(key) == wanted) return value;
  }
  return {};
}

void Router::add(std::string method, std::string path, Handler handler) {
  routes_.push_back({.method = std::move(method),
                     .path = std::move(path),
                     .handler = std::move(handler),
                     .upload = nullptr});
}

void Router::add_upload(std::string path, UploadHandler upload) {
  routes_.push_back({.method = "POST",
                     .path = std::move(path),
                     .handler = nullptr,
                     .upload = std::move(upload),
                     .max_body_bytes = SIZE_MAX});
}

const Route& Router::find(std::string_view method, std::string_view path) const {
  bool path_known = false;
  for (const Route& route : routes_) {
    if (!path_matches(route, path)) continue;
    path_known = true;
    if (route.method == method) return route;
  }
  if (method == "HEAD" && path_known) {
    for (const Route& route : routes_) {
      if (route.method == "GET" && path_matches(route, path)) return route;
    }
  }
  if (!path_known) {
    throw ApiError(404, "path \"" + std::string(path) + "\" not found", "", "unknown_url");
  }
  throw ApiError(405, "method " + std::string(method) + " not allowed for " + std::string(path) +
                          ", expected " + allowed_methods(path));
}

std::string Router::allowed_methods(std::string_view path) const {
  std::vector<std::string> methods;
  for (const Route& route : routes_) {
    if (!path_matches(route, path)) continue;
    methods.push_back(route.method);
    if (route.method == "GET") methods.push_back("HEAD");
  }
  std::sort(methods.begin(), methods.end());
  methods.erase(std::unique(methods.begin(), methods.end()), methods.end());
  std::string text;
  for (const std::string& method : methods)
    text += (text.empty() ? "" : ", ") + method;
  return text;
}

bool host_allowed(std::string_view host_header, std::string_view own_hostname) {
  std::string host = lower(without_port(host_header));
  if (host.ends_with('.')) host.pop_back();
  if (host_header.empty() || host == "localhost" || host == lower(own_hostname)) return true;
  if (const auto local = is_local_address(host)) return *local;
  return host.ends_with(".localhost") || host.ends_with(".local") || host.ends_with(".internal");
}

bool origin_allowed(std::string_view origin, const std::vector<std::string>& extra) {
  const std::string text = lower(origin);
  for (const char* scheme :
       {"app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"}) {
    if (text.starts_with(scheme)) return true;
  }
  for (const char* scheme : {"http://", "https://"}) {
    if (!text.starts_with(scheme)) continue;
    const std::string_view host =
        without_port(std::string_view(text).substr(std::string_view(scheme).size()));
    if (host == "localhost" || host == "127.0.0.1" || host == "0.0.0.0" || host == "::1") {
      return true;
    }
  }
  return std::any_of(extra.begin(), extra.end(),
                     [&text](const std::string& pattern) { return glob_matches(pattern, text); });
}

std::optional<std::string> percent_decode(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      result += text[i];
      continue;
    }
    if (i + 2 >= text.size()) return std::nullopt;
    const int high = hex_digit(text[i + 1]);
    const int low = hex_digit(text[i + 2]);
    if (high < 0 || low < 0 || high + low == 0) return std::nullopt;
    result += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return result;
}

}  // namespace dsctl::commands::serve
