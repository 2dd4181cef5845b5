// Samplers that look at the history: repeat, frequency and presence penalties, and DRY ("don't
// repeat yourself"), which charges for continuing a repetition. They change single logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "engine/request.h"

namespace dsctl::engine {

class Tokenizer;

/// DRY's sequence breakers as token ids: a repetition never reaches back over one. Each is a head
/// token and the tail that must follow it.
class DryBreakers {
 public:
  /// The ways in which each of `breakers` can appear as tokens: inside one token, or from the end
  /// of one over following ones. Reads the whole vocabulary: milliseconds.
  static DryBreakers resolve(const std::vector<std::string>& breakers, const Tokenizer& tokenizer);

  /// Adds a breaker: its head, then its tail. `sequence` has at least one token.
  void add(std::span<const int32_t> sequence);

  /// The tails of the breakers that begin with `head`.
  std::span<const std::vector<int32_t>> tails(int32_t head) const;
  /// Whether `token` is a breaker by itself.
  bool is_single(int32_t token) const;

 private:
  std::unordered_map<int32_t, std::vector<std::vector<int32_t>>> tails_by_head_;
};

/// Scratch memory of the penalties, reused from token to token.
class Penalties {
 public:
  explicit Penalties(int vocab_size);

  /// Repeat, frequency and presence penalties over the window of `history` (prompt and output, the
  /// first `n_prompt` being the prompt) that `params` asks for. `logits` is (vocab_size).
  void apply_repetition(std::span<float> logits, std::span<const int32_t> history, int n_prompt,
                        const SamplingParams& params);

  /// DRY over the window of `history`; `breakers` may be null. O(window).
  void apply_dry(std::span<float> logits, std::span<const int32_t> history,
                 const SamplingParams& params, const DryBreakers* breakers);

 private:
  /// Adds 1 to each token's count, noting the tokens seen for the first time in `touched_`.
  void count(std::span<const int32_t> tokens);
  void clear_counts();

  std::vector<int32_t> counts_;   // (vocab_size) all 0 between calls
  std::vector<int32_t> touched_;  // the tokens whose count is not 0
  std::vector<int32_t> matches_;  // (window) Z-array of the reversed window
};

}  // namespace dsctl::engine
