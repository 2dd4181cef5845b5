// Sampler: one row of logits to one token, on the CPU, as spec/sampling.md orders the chain:
// logit bias and bans, penalties, DRY, top-n-sigma, top-k, typical, top-p, min-p, XTC, temperature,
// draw; or mirostat.
#pragma once

#include <memory>
#include <span>

#include "engine/batch.h"

namespace dsctl::engine {

/// Holds nothing but scratch memory: a token depends on the logits and the row alone, never on what
/// was sampled before or beside it. One thread at a time.
class Sampler {
 public:
  explicit Sampler(int vocab_size);
  ~Sampler();
  Sampler(Sampler&&) noexcept;
  Sampler& operator=(Sampler&&) noexcept;

  /// Chooses a token from `logits` (vocab_size) f32, which it changes. The draw is keyed by (row's
  /// seed, length of row's history). Sets SampledToken::error, and chooses none, when the logits
  /// are not numbers or when every token is banned.
  SampledToken sample(std::span<float> logits, const SampleRow& row);

 private:
  struct Scratch;
  std::unique_ptr<Scratch> scratch_;
};

}  // namespace dsctl::engine
