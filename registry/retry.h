// When a failed request is worth another try, and how long to wait before it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <random>

namespace dsctl::registry {

/// Whether an answer with `status` says "later": 408, 425, 429 and those 5xx that pass.
bool is_retryable_status(int status);

/// Exponential back-off with jitter, so that many clients don't come back in step.
class Backoff {
 public:
  /// `first_ms` is doubled for every attempt up to 30 s; waits that a server asks for are cut at
  /// `max_asked_ms`.
  Backoff(int first_ms, int max_asked_ms);

  /// The wait before try number `attempt` (1: the first repetition): between half and all of the
  /// exponential delay, and at least what the server asked for, plus up to a tenth.
  std::chrono::milliseconds delay(int attempt, std::optional<std::chrono::milliseconds> asked);

 private:
  int first_ms_;
  int max_asked_ms_;
  std::minstd_rand random_;
};

}  // namespace dsctl::registry
