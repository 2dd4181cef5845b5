#include "registry/response_check.h"

#include "registry/request_target.h"
#include "registry/retry.h"

namespace dsctl::registry {
namespace {

std::string text_of(std::optional<std::string_view> value) {
  return std::string(value.value_or(""));
}

/// A header's value as it may be shown: foreign bytes, bounded.
std::string shown(std::string_view value) {
  std::string text;
  for (const char c : value.substr(0, 80))
    text += c < 32 || c == 127 ? '?' : c;
  return text;
}

ResponseVerdict broken(std::string reason) {
  ResponseVerdict verdict;
  verdict.reason = std::move(reason);
  return verdict;
}

ResponseVerdict judge_range(const ResponseHead& head, int64_t begin, int64_t end) {
  const std::string asked = std::to_string(begin) + "-" + (end < 0 ? "" : std::to_string(end - 1));
  const auto header = head.find("content-range");
  if (!header) return broken("HTTP 206 without Content-Range to a request for bytes " + asked);
  const auto range = parse_content_range(*header);
  if (!range || range->begin != begin || (end >= 0 && range->end > end)) {
    return broken("answers \"" + shown(*header) + "\" to a request for bytes " + asked);
  }
  ResponseVerdict verdict;
  verdict.kind = Verdict::kRange;
  verdict.begin = range->begin;
  verdict.end = range->end;
  verdict.total_bytes = range->total;
  return verdict;
}

ResponseVerdict judge_status(const ResponseHead& head, int64_t begin, int64_t end, int64_t now) {
  const int status = head.status();
  ResponseVerdict verdict;
  verdict.reason = "HTTP " + std::to_string(status);
  if (is_retryable_status(status)) {
    verdict.kind = Verdict::kLater;
    if (const auto header = head.find("retry-after")) {
      verdict.retry_after = parse_retry_after(*header, now);
    }
    return verdict;
  }
  switch (status) {
    case 200:
      verdict.kind = Verdict::kWhole;
      if (const auto length = head.find("content-length")) {
        const auto n_bytes = parse_decimal(*length);
        if (!n_bytes) return broken("Content-Length \"" + shown(*length) + "\"");
        verdict.total_bytes = *n_bytes;
      }
      return verdict;
    case 206:
      return judge_range(head, begin, end);
    case 416:
      verdict.kind = Verdict::kUnsatisfiable;
      if (const auto header = head.find("content-range")) {
        verdict.total_bytes = parse_content_range(*header).value_or(ContentRange()).total;
      }
      return verdict;
    case 400:  // object stores say so when a signature has expired
    case 401:
    case 403:
    case 404:
    case 410:
      verdict.kind = Verdict::kExpired;
      return verdict;
    default:
      break;
  }
  if (!is_redirect_status(status)) return verdict;  // broken, with its status as the reason
  const auto location = head.find("location");
  if (!location) return broken(verdict.reason + " without Location");
  verdict.kind = Verdict::kRedirect;
  verdict.location = *location;
  return verdict;
}

}  // namespace

ResponseVerdict judge_response(const ResponseHead& head, int64_t begin, int64_t end, int64_t now) {
  ResponseVerdict verdict = judge_status(head, begin, end, now);
  if (verdict.kind != Verdict::kRange && verdict.kind != Verdict::kWhole) return verdict;
  const std::string encoding = text_of(head.find("content-encoding"));
  if (!encoding.empty() && encoding != "identity") {
    return broken("answers in Content-Encoding \"" + shown(encoding) + "\", asked for identity");
  }
  verdict.validator = text_of(head.find("etag"));
  if (verdict.validator.empty()) verdict.validator = text_of(head.find("last-modified"));
  return verdict;
}

}  // namespace dsctl::registry
