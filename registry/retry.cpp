#include "registry/retry.h"

#include <algorithm>

namespace dsctl::registry {
namespace {

constexpr int64_t kMaxDelayMs = 30'000;

}  // namespace

bool is_retryable_status(int status) {
  switch (status) {
    case 408:
    case 425:
    case 429:
      return true;
    case 501:  // not implemented
    case 505:  // HTTP version
    case 507:  // storage
    case 508:  // loop
    case 509:  // bandwidth used up
    case 511:  // log in to the network
      return false;
    default:
      return status >= 500 && status <= 599;
  }
}

Backoff::Backoff(int first_ms, int max_asked_ms)
    : first_ms_(std::max(1, first_ms)),
      max_asked_ms_(max_asked_ms),
      random_(std::random_device()()) {}

std::chrono::milliseconds Backoff::delay(int attempt,
                                         std::optional<std::chrono::milliseconds> asked) {
  const int doublings = std::clamp(attempt - 1, 0, 20);
  const int64_t full = std::min(int64_t{first_ms_} << doublings, kMaxDelayMs);
  int64_t wait = std::uniform_int_distribution<int64_t>(full / 2, full)(random_);
  if (asked) {
    const int64_t least = std::min<int64_t>(asked->count(), max_asked_ms_);
    wait = std::max(wait, least + std::uniform_int_distribution<int64_t>(0, least / 10)(random_));
  }
  return std::chrono::milliseconds(wait);
}

}  // namespace dsctl::registry
