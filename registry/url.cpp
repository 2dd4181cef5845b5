#include "registry/url.h"

#include <arpa/inet.h>
#include <curl/curl.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <memory>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

constexpr size_t kMaxUrlBytes = 16 << 10;

struct UrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using UrlHandle = std::unique_ptr<CURLU, UrlDeleter>;

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

UrlHandle parse(std::string_view url) {
  if (url.size() > kMaxUrlBytes) {
    throw Error(printable_url(url.substr(0, 200)) + "...: a URL of " + std::to_string(url.size()) +
                " bytes, at most 16384 are taken");
  }
  UrlHandle handle(curl_url());
  const std::string text(url);  // ends in a zero
  if (!handle || text.find('\0') != std::string::npos ||
      curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), CURLU_NON_SUPPORT_SCHEME) != 0) {
    throw Error("\"" + printable_url(url) + "\" is no URL");
  }
  return handle;
}

std::optional<std::string> part(CURLU* url, CURLUPart which, unsigned flags = 0) {
  char* text = nullptr;
  if (curl_url_get(url, which, &text, flags) != CURLUE_OK) return std::nullopt;
  std::string copy(text);
  curl_free(text);
  return copy;
}

bool in_net(const std::array<uint8_t, 4>& address, uint32_t net, int bits) {
  uint32_t value = 0;
  for (const uint8_t byte : address)
    value = value << 8 | byte;
  return (value ^ net) >> (32 - bits) == 0;
}

bool is_private_v4(const std::array<uint8_t, 4>& a) {
  // 198.18/15 stays out: transparent proxies hand it out for every public name.
  return in_net(a, 0x00000000, 8) || in_net(a, 0x0A000000, 8) || in_net(a, 0x64400000, 10) ||
         in_net(a, 0x7F000000, 8) || in_net(a, 0xA9FE0000, 16) || in_net(a, 0xAC100000, 12) ||
         in_net(a, 0xC0000000, 24) || in_net(a, 0xC0A80000, 16) || in_net(a, 0xE0000000, 3);
}

bool is_private_v6(const std::array<uint8_t, 16>& a) {
  static constexpr std::array<uint8_t, 12> kMapped{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  static constexpr std::array<uint8_t, 12> kNat64{0, 0x64, 0xff, 0x9b};
  const bool embeds_v4 = std::equal(kMapped.begin(), kMapped.end(), a.begin()) ||
                         std::equal(kNat64.begin(), kNat64.end(), a.begin());
  if (embeds_v4) return is_private_v4({a[12], a[13], a[14], a[15]});
  const bool zeros = std::all_of(a.begin(), a.begin() + 15, [](uint8_t byte) { return byte == 0; });
  if (zeros && a[15] <= 1) return true;                 // unspecified, loopback
  if ((a[0] & 0xfe) == 0xfc) return true;               // unique local
  if (a[0] == 0xfe && (a[1] & 0x80) != 0) return true;  // link-local and the old site-local
  return a[0] == 0xff;                                  // multicast
}

bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '.' || c == '_' || c == '~';
}

}  // namespace

SplitUrl split_url(std::string_view url) {
  const UrlHandle handle = parse(url);
  SplitUrl split;
  split.origin.scheme = lower(part(handle.get(), CURLUPART_SCHEME).value_or(""));
  if (split.origin.scheme != "http" && split.origin.scheme != "https") {
    throw Error(printable_url(url) + ": scheme \"" + split.origin.scheme +
                "\", expected http or https");
  }
  split.origin.host = lower(part(handle.get(), CURLUPART_HOST).value_or(""));
  if (split.origin.host.empty()) throw Error(printable_url(url) + ": has no host");
  if (split.origin.host.front() == '[' && split.origin.host.back() == ']') {
    split.origin.host = split.origin.host.substr(1, split.origin.host.size() - 2);
  }
  const auto port = part(handle.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT);
  split.origin.port = port ? std::atoi(port->c_str()) : 0;  // curl has checked the digits
  const auto user = part(handle.get(), CURLUPART_USER, CURLU_URLDECODE);
  const auto password = part(handle.get(), CURLUPART_PASSWORD, CURLU_URLDECODE);
  if (user || password) split.user_password = {user.value_or(""), password.value_or("")};
  for (const CURLUPart which : {CURLUPART_USER, CURLUPART_PASSWORD, CURLUPART_FRAGMENT}) {
    curl_url_set(handle.get(), which, nullptr, 0);
  }
  split.url = part(handle.get(), CURLUPART_URL).value_or("");
  return split;
}

std::string printable_url(std::string_view url) {
  url = url.substr(0, url.find_first_of("?#"));
  std::string shown;
  const size_t scheme_end = url.find("://");
  if (scheme_end != std::string_view::npos) {
    const size_t host = scheme_end + 3;
    const size_t host_end = std::min(url.find('/', host), url.size());
    const size_t at = url.substr(host, host_end - host).rfind('@');
    shown = url.substr(0, host);
    url.remove_prefix(at == std::string_view::npos ? host : host + at + 1);
  }
  for (const char c : url)
    shown += static_cast<unsigned char>(c) < 32 || c == 127 ? '?' : c;
  return shown;
}

std::string percent_encode(std::string_view text, std::string_view keep) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    if (is_unreserved(c) || keep.find(c) != std::string_view::npos) {
      encoded += c;
      continue;
    }
    encoded += '%';
    encoded += kDigits[static_cast<unsigned char>(c) >> 4];
    encoded += kDigits[static_cast<unsigned char>(c) & 15];
  }
  return encoded;
}

std::string resolve_url(std::string_view base, std::string_view reference) {
  if (reference.size() > kMaxUrlBytes) {
    throw Error(printable_url(base) + ": refers to a URL of " + std::to_string(reference.size()) +
                " bytes, at most 16384 are taken");
  }
  const UrlHandle handle = parse(base);
  const std::string text(reference);
  // Servers put spaces and raw UTF-8 into Location: encoded, as browsers do.
  const unsigned flags = CURLU_NON_SUPPORT_SCHEME | CURLU_URLENCODE;
  if (text.find('\0') != std::string::npos ||
      curl_url_set(handle.get(), CURLUPART_URL, text.c_str(), flags) != 0) {
    throw Error(printable_url(base) + ": refers to \"" + printable_url(reference.substr(0, 200)) +
                "\", which is no URL");
  }
  return part(handle.get(), CURLUPART_URL).value_or("");
}

bool is_private_address(std::string_view address) {
  const std::string text(address.substr(0, address.find('%')));  // an IPv6 zone
  std::array<uint8_t, 4> v4{};
  if (::inet_pton(AF_INET, text.c_str(), v4.data()) == 1) return is_private_v4(v4);
  std::array<uint8_t, 16> v6{};
  return ::inet_pton(AF_INET6, text.c_str(), v6.data()) == 1 && is_private_v6(v6);
}

bool is_private_host(std::string_view host) {
  if (host.ends_with('.')) host.remove_suffix(1);
  return host == "localhost" || host.ends_with(".localhost") || is_private_address(host);
}

}  // namespace dsctl::registry
