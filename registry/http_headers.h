// Parsers for the response headers that decide what the registry does next, and the collector that
// keeps a hostile server's headers within bounds.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace dsctl::registry {

/// Status line and headers of one answer.
class ResponseHead {
 public:
  static constexpr size_t kMaxBytes = 128 << 10;
  static constexpr size_t kMaxHeaders = 512;

  /// Takes a line as it arrived. A new status line starts anew (100 Continue, a proxy's CONNECT).
  /// False when the limits are passed: the answer is not to be read further.
  bool add_line(std::string_view line);
  void clear();

  int status() const { return status_; }
  /// The last header called `name` (lower case), or nothing.
  std::optional<std::string_view> find(std::string_view name) const;
  const std::multimap<std::string, std::string>& headers() const { return headers_; }
  std::multimap<std::string, std::string> take_headers() { return std::move(headers_); }

 private:
  int status_ = 0;
  size_t size_bytes_ = 0;
  std::multimap<std::string, std::string> headers_;  // names in lower case
};

/// "bytes 0-99/200", "bytes 0-99/*" or "bytes */200" (of a 416).
struct ContentRange {
  int64_t begin = -1;  // -1: unsatisfied
  int64_t end = -1;    // one past the last byte
  int64_t total = -1;  // -1: not known
};
std::optional<ContentRange> parse_content_range(std::string_view text);

/// A non-negative decimal number without sign or space that fits; nothing otherwise.
std::optional<int64_t> parse_decimal(std::string_view text);

/// Seconds since 1970 of an HTTP date in any of its three forms (RFC 9110 5.6.7).
std::optional<int64_t> parse_http_date(std::string_view text);

/// How long a Retry-After header asks to wait, seen from `now` (seconds since 1970); a date in the
/// past is 0. Nothing when it is neither a number nor a date.
std::optional<std::chrono::milliseconds> parse_retry_after(std::string_view text, int64_t now);

/// The target of `rel` ("next", "xet-auth") in a Link header, as it stands there.
std::optional<std::string> parse_link(std::string_view text, std::string_view rel);

}  // namespace dsctl::registry
