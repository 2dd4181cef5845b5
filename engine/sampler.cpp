#include "engine/sampler.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/grammar/grammar.h"
#include "engine/philox.h"
#include "engine/sampler_candidates.h"
#include "engine/sampler_penalties.h"

namespace dsctl::engine {
namespace {

constexpr size_t kBlock = 64;  // logits that share one maximum
constexpr float kNegInf = -std::numeric_limits<float>::infinity();

enum class LogitCheck { kOk, kNotNumbers, kAllBanned };

/// The maximum of each block of logits. `maxima` is (ceil(vocab_size / kBlock)). Finds NaN and
/// +inf on the way. Lanes, so that it vectorises: one pass at the speed of memory.
LogitCheck block_maxima(std::span<const float> logits, std::span<float> maxima) {
  constexpr size_t kLanes = 16;
  std::array<uint32_t, kLanes> not_numbers{};
  float best = kNegInf;
  for (size_t block = 0; block < maxima.size(); ++block) {
    const float* values = logits.data() + block * kBlock;
    const size_t n = std::min(kBlock, logits.size() - block * kBlock);
    std::array<float, kLanes> lanes;
    lanes.fill(kNegInf);
    size_t i = 0;
    for (; i + kLanes <= n; i += kLanes) {
      for (size_t lane = 0; lane < kLanes; ++lane) {
        const float value = values[i + lane];
        lanes[lane] = value > lanes[lane] ? value : lanes[lane];
        not_numbers[lane] |= static_cast<uint32_t>(value != value);
      }
    }
    for (; i < n; ++i) {
      lanes[0] = values[i] > lanes[0] ? values[i] : lanes[0];
      not_numbers[0] |= static_cast<uint32_t>(values[i] != values[i]);
    }
    maxima[block] = *std::max_element(lanes.begin(), lanes.end());
    best = std::max(best, maxima[block]);
  }
  const bool bad =
      std::any_of(not_numbers.begin(), not_numbers.end(), [](uint32_t lane) { return lane != 0; });
  if (bad || best == std::numeric_limits<float>::infinity()) return LogitCheck::kNotNumbers;
  return best == kNegInf ? LogitCheck::kAllBanned : LogitCheck::kOk;
}

/// The index of the largest logit, the first of equals.
size_t arg_max(std::span<const float> logits, std::span<const float> maxima) {
  const auto block =
      static_cast<size_t>(std::max_element(maxima.begin(), maxima.end()) - maxima.begin());
  const auto values =
      logits.subspan(block * kBlock).first(std::min(kBlock, logits.size() - block * kBlock));
  return block * kBlock +
         static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

/// Gathers the logits >= `least` as candidates in the order of ids, never -inf. Blocks below are
/// not read.
void gather(std::span<const float> logits, std::span<const float> maxima, float least,
            Candidates& out) {
  out.items.clear();
  out.sorted = false;
  for (size_t block = 0; block < maxima.size(); ++block) {
    if (maxima[block] < least || maxima[block] == kNegInf) continue;
    const size_t end = std::min((block + 1) * kBlock, logits.size());
    for (size_t i = block * kBlock; i < end; ++i) {
      if (logits[i] >= least && logits[i] != kNegInf) {
        out.items.push_back({.id = static_cast<int32_t>(i), .logit = logits[i]});
      }
    }
  }
}

/// The log of the sum of exponentials: what turns a logit into a log-probability.
double log_sum_exp(std::span<const float> logits, float max_logit) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  size_t i = 0;
  for (; i + kLanes <= logits.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += static_cast<double>(exp_f32(logits[i + lane] - max_logit));
    }
  }
  double sum = 0.0;
  for (; i < logits.size(); ++i)
    sum += static_cast<double>(exp_f32(logits[i] - max_logit));
  for (const double lane : sums)
    sum += lane;
  return static_cast<double>(max_logit) + std::log(sum);
}

/// False, with an error in `result`, when the grammar lets nothing follow.
bool apply_grammar(GrammarMatcher& grammar, std::span<float> logits, SampledToken& result) {
  try {
    if (grammar.apply(logits)) return true;
    result.error = "grammar: no token of the vocabulary can follow what was generated";
  } catch (const Error& error) {
    result.error = error.what();
  }
  return false;
}

}  // namespace

struct Sampler::Scratch {
  explicit Scratch(int n)
      : vocab_size(n),
        penalties(n),
        maxima((static_cast<size_t>(n) + kBlock - 1) / kBlock),
        ordered_maxima(maxima.size()) {
    candidates.items.reserve(static_cast<size_t>(n));
  }

  /// The `k` best of the logits, sorted; all of them, unsorted, for k <= 0. `maxima` must be
  /// theirs.
  void select(std::span<const float> logits, int k) {
    float least = kNegInf;
    if (k > 0 && static_cast<size_t>(k) <= maxima.size()) {
      // k blocks have a logit at least as large as the k-th largest maximum, so the k best are not
      // below it.
      std::copy(maxima.begin(), maxima.end(), ordered_maxima.begin());
      const auto kth = ordered_maxima.begin() + (k - 1);
      std::nth_element(ordered_maxima.begin(), kth, ordered_maxima.end(), std::greater<>());
      least = *kth;
    }
    gather(logits, maxima, least, candidates);
    keep_top_k(candidates, k);
  }

  /// The part of the chain after the logits were edited: leaves the candidates of the draw.
  void truncate(std::span<const float> logits, const SamplingParams& params, TokenRandom& random);

  /// Bias, bans and penalties: whatever changes single logits.
  void edit(std::span<float> logits, const SampleRow& row);

  /// Keeps the untouched distribution for the log-probabilities of the row.
  LogitCheck keep_raw(std::span<const float> logits, int n_logprobs);
  void report_logprobs(SampledToken& result) const;

  int vocab_size;
  Penalties penalties;
  Candidates candidates;
  std::vector<float> maxima;          // (ceil(vocab_size / kBlock))
  std::vector<float> ordered_maxima;  // same, for finding the k-th
  std::vector<float> raw;             // (vocab_size) untouched logits
  double raw_log_sum = 0.0;
  std::vector<TokenLogprob> raw_top;
};

LogitCheck Sampler::Scratch::keep_raw(std::span<const float> logits, int n_logprobs) {
  const LogitCheck check = block_maxima(logits, maxima);
  if (check != LogitCheck::kOk) return check;
  raw.assign(logits.begin(), logits.end());
  raw_log_sum = log_sum_exp(raw, *std::max_element(maxima.begin(), maxima.end()));
  raw_top.clear();
  if (n_logprobs == 0) return check;
  select(raw, n_logprobs);
  for (const Candidate& item : candidates.items) {
    raw_top.push_back(
        {.token = item.id,
         .logprob = static_cast<float>(static_cast<double>(item.logit) - raw_log_sum)});
  }
  return check;
}

void Sampler::Scratch::report_logprobs(SampledToken& result) const {
  result.logprob =
      static_cast<float>(static_cast<double>(raw[static_cast<size_t>(result.token)]) - raw_log_sum);
  result.top_logprobs = raw_top;
}

void Sampler::Scratch::edit(std::span<float> logits, const SampleRow& row) {
  const SamplingParams& params = *row.params;
  for (const auto& [token, bias] : params.logit_bias)
    logits[static_cast<size_t>(token)] += bias;
  if (row.banned) {
    for (const int32_t token : *row.banned)
      logits[static_cast<size_t>(token)] = kNegInf;
  }
  // Mirostat replaces the penalties too, as in llama.cpp.
  if (params.mirostat != 0) return;
  penalties.apply_repetition(logits, *row.history, row.n_prompt, params);
  penalties.apply_dry(logits, *row.history, params, row.dry_breakers);
}

void Sampler::Scratch::truncate(std::span<const float> logits, const SamplingParams& params,
                                TokenRandom& random) {
  if (params.top_n_sigma > 0.0f) {
    select(logits, 0);
    keep_top_n_sigma(candidates, params.top_n_sigma);
    keep_top_k(candidates, params.top_k);
  } else {
    select(logits, params.top_k);
  }
  keep_typical(candidates, params.typical_p);
  keep_top_p(candidates, params.top_p);
  keep_min_p(candidates, params.min_p);
  if (params.xtc_probability > 0.0f && params.xtc_threshold <= 0.5f &&
      random.xtc() <= static_cast<double>(params.xtc_probability)) {
    exclude_top_choices(candidates, params.xtc_threshold);
  }
  apply_temperature(candidates, params.temperature, params.dynatemp_range,
                    params.dynatemp_exponent);
}

Sampler::Sampler(int vocab_size) : scratch_(std::make_unique<Scratch>(vocab_size)) {}
Sampler::~Sampler() = default;
Sampler::Sampler(Sampler&&) noexcept = default;
Sampler& Sampler::operator=(Sampler&&) noexcept = default;

SampledToken Sampler::sample(std::span<float> logits, const SampleRow& row) {
  assert(logits.size() == static_cast<size_t>(scratch_->vocab_size));
  Scratch& scratch = *scratch_;
  const SamplingParams& params = *row.params;
  SampledToken result;
  result.mirostat_mu = row.mirostat_mu;
  const bool wants_logprobs = params.n_logprobs >= 0;
  LogitCheck check = wants_logprobs ? scratch.keep_raw(logits, params.n_logprobs) : LogitCheck::kOk;
  if (check == LogitCheck::kOk) {
    scratch.edit(logits, row);
    if (row.grammar != nullptr && !apply_grammar(*row.grammar, logits, result)) return result;
    check = block_maxima(logits, scratch.maxima);
  }
  const std::string where = " at position " + std::to_string(row.history->size());
  switch (check) {
    case LogitCheck::kOk:
      break;
    case LogitCheck::kNotNumbers:
      result.error = "the model's logits" + where +
                     " contain NaN or infinity; the model file may be damaged or its type overflow";
      return result;
    case LogitCheck::kAllBanned:
      result.error = "no token can be chosen" + where + ": all are banned or have a logit of -inf";
      return result;
  }
  TokenRandom random(row.seed, row.history->size());
  Candidates& candidates = scratch.candidates;
  if (params.temperature <= 0.0f) {
    result.token = static_cast<int32_t>(arg_max(logits, scratch.maxima));
  } else if (params.mirostat == 0) {
    scratch.truncate(logits, params, random);
    result.token = candidates.items[draw(candidates, random)].id;
  } else {
    scratch.select(logits, 0);
    apply_temperature(candidates, params.temperature, params.dynatemp_range,
                      params.dynatemp_exponent);
    if (params.mirostat == 1) {
      keep_mirostat_v1(candidates, row.mirostat_mu, scratch.vocab_size);
    } else {
      keep_mirostat_v2(candidates, row.mirostat_mu);
    }
    const size_t winner = draw(candidates, random);
    result.token = candidates.items[winner].id;
    const double surprise = -std::log2(probability_of(candidates, winner));
    result.mirostat_mu -= params.mirostat_eta *
                          static_cast<float>(surprise - static_cast<double>(params.mirostat_tau));
  }
  if (wants_logprobs) scratch.report_logprobs(result);
  return result;
}

}  // namespace dsctl::engine
