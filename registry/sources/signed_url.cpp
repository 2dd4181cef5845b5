#include "registry/sources/signed_url.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <ctime>
#include <optional>

#include "registry/sources/remote_url.h"

namespace dsctl::registry {
namespace {

constexpr int64_t kMaxLifeSeconds = 366LL * 24 * 3600;

std::optional<int64_t> number(std::string_view text) {
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0 ||
      value > (int64_t{1} << 40)) {
    return std::nullopt;
  }
  return value;
}

std::string query_value(std::string_view query, std::string_view name) {
  while (!query.empty()) {
    const size_t end = std::min(query.find('&'), query.size());
    const std::string_view field = query.substr(0, end);
    if (field.size() > name.size() && field.starts_with(name) && field[name.size()] == '=') {
      return percent_decoded(field.substr(name.size() + 1));
    }
    query.remove_prefix(std::min(end + 1, query.size()));
  }
  return "";
}

/// "20260131T120000Z" in seconds of Unix time.
std::optional<int64_t> amazon_time(const std::string& text) {
  std::tm parts{};
  if (text.size() != 16 || text[8] != 'T' || text[15] != 'Z') return std::nullopt;
  const char* end = ::strptime(text.c_str(), "%Y%m%dT%H%M%SZ", &parts);
  if (!end || *end != '\0') return std::nullopt;
  return ::timegm(&parts);
}

}  // namespace

int64_t signed_url_expiry(std::string_view url) {
  const std::optional<Url> parsed = Url::parse(url);
  if (!parsed) return 0;
  if (const auto expires = number(query_value(parsed->query, "Expires"))) return *expires;
  const auto begin = amazon_time(query_value(parsed->query, "X-Amz-Date"));
  const auto life = number(query_value(parsed->query, "X-Amz-Expires"));
  return begin && life ? *begin + *life : 0;
}

int64_t steady_ms_after(int64_t seconds) {
  using std::chrono::steady_clock;
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now().time_since_epoch());
  const int64_t life = std::clamp<int64_t>(seconds, 0, kMaxLifeSeconds);
  // A little early, so that no request sets out with a URL about to end. Never "not known".
  return std::max<int64_t>(1, now.count() + life * 1000 - std::min<int64_t>(5000, life * 100));
}

DownloadUrl signed_download_url(const std::string& url, std::vector<std::string> headers) {
  DownloadUrl result{url, std::move(headers), 0};
  const int64_t expiry = signed_url_expiry(url);
  if (expiry == 0) return result;
  // A clock that is wrong must not make every URL look over: the server has the last word.
  const int64_t left = expiry - static_cast<int64_t>(std::time(nullptr));
  if (left > 0) result.expires_at_ms = steady_ms_after(left);
  return result;
}

}  // namespace dsctl::registry
