// RateLimit: a token bucket over all connections of a download.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>

namespace dsctl::registry {

class RateLimit {
 public:
  using Clock = std::chrono::steady_clock;

  /// 0: no limit. The bucket holds a tenth of a second's bytes, so that a pause is no licence for
  /// a burst.
  explicit RateLimit(int64_t bytes_per_second) : bytes_per_second_(bytes_per_second) {}

  bool is_limited() const { return bytes_per_second_ > 0; }
  /// Whether bytes may be taken now.
  bool allows(Clock::time_point now) {
    refill(now);
    return !is_limited() || tokens_ > 0;
  }
  /// Takes `n_bytes`, on credit where there are fewer.
  void take(int64_t n_bytes) {
    if (is_limited()) tokens_ -= static_cast<double>(n_bytes);
  }
  /// How long until bytes may be taken; 0 when they may now.
  std::chrono::milliseconds wait(Clock::time_point now) {
    if (allows(now)) return std::chrono::milliseconds(0);
    const double seconds = -tokens_ / static_cast<double>(bytes_per_second_);
    return std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000) + 1);
  }

 private:
  void refill(Clock::time_point now) {
    const std::chrono::duration<double> passed = now - filled_at_;
    filled_at_ = now;
    const auto rate = static_cast<double>(bytes_per_second_);
    tokens_ = std::min(tokens_ + passed.count() * rate, rate / 10);
  }

  int64_t bytes_per_second_;
  double tokens_ = 0;
  Clock::time_point filled_at_ = Clock::now();
};

}  // namespace dsctl::registry
