#include "engine/sampler_penalties.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>
#include <utility>

#include "engine/tokenizer/tokenizer.h"

namespace dsctl::engine {
namespace {

// llama.cpp's bounds, so that a long breaker costs no more here.
constexpr size_t kMaxBreakerBytes = 40;
constexpr size_t kMaxTailTokens = 20;

std::span<const int32_t> last_tokens(std::span<const int32_t> history, int n) {
  if (n < 0 || static_cast<size_t>(n) >= history.size()) return history;
  return history.last(static_cast<size_t>(n));
}

/// How far back a repetition may reach: up to the newest breaker in `window`.
size_t repetition_limit(std::span<const int32_t> window, const DryBreakers* breakers) {
  if (!breakers) return window.size();
  for (size_t i = 0; i < window.size(); ++i) {  // tokens after the head
    const size_t head_idx = window.size() - 1 - i;
    ptrdiff_t longest = -1;
    for (const auto& tail : breakers->tails(window[head_idx])) {
      if (tail.size() > i || static_cast<ptrdiff_t>(tail.size()) <= longest) continue;
      if (std::equal(tail.begin(), tail.end(),
                     window.begin() + static_cast<ptrdiff_t>(head_idx) + 1)) {
        longest = static_cast<ptrdiff_t>(tail.size());
      }
    }
    if (longest >= 0) return i - static_cast<size_t>(longest);
  }
  return window.size();
}

/// The Z-array of the reversed window: z[i] is how many tokens before (and with) the i-th from the
/// end equal the window's last ones.
void compute_matches(std::span<const int32_t> window, std::vector<int32_t>& z) {
  const auto n = static_cast<int32_t>(window.size());
  const auto at = [&](int32_t i) { return window[static_cast<size_t>(n - 1 - i)]; };
  z.assign(window.size(), 0);
  int32_t begin = 0;  // the match [begin, end) that reaches farthest
  int32_t end = 0;
  for (int32_t i = 1; i < n; ++i) {
    int32_t length = i < end ? std::min(end - i, z[static_cast<size_t>(i - begin)]) : 0;
    while (i + length < n && at(length) == at(i + length))
      ++length;
    if (i + length > end) {
      begin = i;
      end = i + length;
    }
    z[static_cast<size_t>(i)] = length;
  }
}

}  // namespace

DryBreakers DryBreakers::resolve(const std::vector<std::string>& breakers,
                                 const Tokenizer& tokenizer) {
  DryBreakers result;
  for (const std::string& whole : breakers) {
    const std::string_view breaker = std::string_view(whole).substr(0, kMaxBreakerBytes);
    if (breaker.empty()) continue;
    // What follows after a token that ends with the first n bytes, found once for each n.
    std::vector<std::vector<int32_t>> rests(breaker.size());
    for (size_t n = 1; n < breaker.size(); ++n) {
      rests[n] = tokenizer.encode(breaker.substr(n), AddSpecial::kNo, SpecialTokens::kAsText);
      if (rests[n].size() > kMaxTailTokens) rests[n].resize(kMaxTailTokens);
    }
    std::vector<int32_t> sequence;
    for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
      const std::string_view piece = tokenizer.piece(token, SpecialTokens::kParse);
      if (piece.find(breaker) != std::string_view::npos) {
        result.add(std::span(&token, 1));
        continue;
      }
      for (size_t n = 1; n < breaker.size(); ++n) {
        if (!piece.ends_with(breaker.substr(0, n))) continue;
        sequence.assign(1, token);
        sequence.insert(sequence.end(), rests[n].begin(), rests[n].end());
        result.add(sequence);
      }
    }
  }
  return result;
}

void DryBreakers::add(std::span<const int32_t> sequence) {
  auto& tails = tails_by_head_[sequence.front()];
  std::vector<int32_t> tail(sequence.begin() + 1, sequence.end());
  if (std::find(tails.begin(), tails.end(), tail) == tails.end()) tails.push_back(std::move(tail));
}

std::span<const std::vector<int32_t>> DryBreakers::tails(int32_t head) const {
  const auto found = tails_by_head_.find(head);
  return found == tails_by_head_.end() ? std::span<const std::vector<int32_t>>() : found->second;
}

bool DryBreakers::is_single(int32_t token) const {
  const auto all = tails(token);
  return std::any_of(all.begin(), all.end(), [](const auto& tail) { return tail.empty(); });
}

Penalties::Penalties(int vocab_size) : counts_(static_cast<size_t>(vocab_size)) {}

void Penalties::count(std::span<const int32_t> tokens) {
  for (const int32_t token : tokens) {
    if (counts_[static_cast<size_t>(token)]++ == 0) touched_.push_back(token);
  }
}

void Penalties::clear_counts() {
  for (const int32_t token : touched_)
    counts_[static_cast<size_t>(token)] = 0;
  touched_.clear();
}

void Penalties::apply_repetition(std::span<float> logits, std::span<const int32_t> history,
                                 int n_prompt, const SamplingParams& params) {
  const bool counts = params.frequency_penalty != 0.0f || params.presence_penalty != 0.0f;
  if (params.repeat_penalty == 1.0f && !counts) return;
  const auto window = last_tokens(history, params.repeat_last_n);
  if (params.repeat_penalty != 1.0f) {
    count(window);
    for (const int32_t token : touched_) {
      float& logit = logits[static_cast<size_t>(token)];
      logit = logit <= 0.0f ? logit * params.repeat_penalty : logit / params.repeat_penalty;
    }
    if (!params.penalize_prompt) clear_counts();
  }
  if (counts) {
    const size_t n_output = history.size() - static_cast<size_t>(n_prompt);
    const auto counted =
        params.penalize_prompt ? window : window.last(std::min(window.size(), n_output));
    if (touched_.empty()) count(counted);
    for (const int32_t token : touched_) {
      logits[static_cast<size_t>(token)] -=
          static_cast<float>(counts_[static_cast<size_t>(token)]) * params.frequency_penalty +
          params.presence_penalty;
    }
  }
  clear_counts();
}

void Penalties::apply_dry(std::span<float> logits, std::span<const int32_t> history,
                          const SamplingParams& params, const DryBreakers* breakers) {
  if (params.dry_multiplier == 0.0f || params.dry_base < 1.0f) return;
  const auto window = last_tokens(history, params.dry_last_n);
  const auto allowed = static_cast<size_t>(params.dry_allowed_length);
  if (window.size() <= allowed) return;
  const size_t limit = repetition_limit(window, breakers);
  if (limit < allowed) return;
  compute_matches(window, matches_);
  // The longest repetition that each token would continue; kept plus one, 0 meaning none.
  for (size_t i = 1; i < window.size(); ++i) {
    const size_t length = std::min(static_cast<size_t>(matches_[i]), limit);
    if (length < allowed) continue;
    const int32_t next = window[window.size() - i];
    int32_t& longest = counts_[static_cast<size_t>(next)];
    if (longest == 0) touched_.push_back(next);
    longest = std::max(longest, static_cast<int32_t>(length) + 1);
  }
  // The largest exponent whose power is still an f32.
  const float max_exponent = params.dry_base > 1.000001f
                                 ? std::floor(88.7228391f / std::log(params.dry_base))
                                 : std::numeric_limits<float>::infinity();
  for (const int32_t token : touched_) {
    if (breakers && breakers->is_single(token)) continue;
    const auto excess =
        static_cast<float>(counts_[static_cast<size_t>(token)] - 1 - params.dry_allowed_length);
    logits[static_cast<size_t>(token)] -=
        params.dry_multiplier * std::pow(params.dry_base, std::min(excess, max_exponent));
  }
  clear_counts();
}

}  // namespace dsctl::engine
