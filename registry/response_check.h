// What the answer to a request for a range of a file means. Pure, so that it can be tested and
// fuzzed: the download acts on the verdict.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "registry/http_headers.h"

namespace dsctl::registry {

enum class Verdict {
  kRange,          // 206: the body is [begin, end) of the file
  kWhole,          // 200: the body is the whole file
  kRedirect,       // `location` says where
  kLater,          // 408, 429, 5xx: `retry_after` may say when
  kExpired,        // 400, 401, 403, 404, 410: the URL is no (longer) good
  kUnsatisfiable,  // 416: `total_bytes` may say how long the file is
  kBroken          // makes no sense; `reason` says why
};

struct ResponseVerdict {
  Verdict kind = Verdict::kBroken;
  int64_t begin = 0;
  int64_t end = 0;
  int64_t total_bytes = -1;  // -1: not told
  std::string validator;     // strong or weak ETag, else Last-Modified; empty: none
  std::string location;
  std::optional<std::chrono::milliseconds> retry_after;
  std::string reason;  // for people, for all that bring no bytes
};

/// Judges the head of the answer to a request for [begin, end) (`end` -1: everything from `begin`).
/// `now`: seconds since 1970, for dates in Retry-After.
ResponseVerdict judge_response(const ResponseHead& head, int64_t begin, int64_t end, int64_t now);

}  // namespace dsctl::registry
