#include "engine/sampler_candidates.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace dsctl::engine {
namespace {

/// Cumulative probabilities this close to a limit count as having reached it: 0.4 + 0.3 is 0.7
/// whatever f32 makes of it.
constexpr double kProbabilityTolerance = 1e-6;

constexpr int kMirostatTokens = 100;

size_t best_idx(const Candidates& candidates) {
  if (candidates.sorted) return 0;
  const auto& items = candidates.items;
  return static_cast<size_t>(std::min_element(items.begin(), items.end(), is_better) -
                             items.begin());
}

/// The sum of e^(logit - max_logit), in lanes so that it vectorises.
double sum_weights(const std::vector<Candidate>& items, float max_logit) {
  constexpr size_t kLanes = 8;
  std::array<double, kLanes> sums{};
  size_t i = 0;
  for (; i + kLanes <= items.size(); i += kLanes) {
    for (size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += static_cast<double>(exp_f32(items[i + lane].logit - max_logit));
    }
  }
  double sum = 0.0;
  for (; i < items.size(); ++i)
    sum += static_cast<double>(exp_f32(items[i].logit - max_logit));
  for (const double lane : sums)
    sum += lane;
  return sum;
}

/// The entropy in nats, given the best logit and the sum of the weights.
double entropy(const std::vector<Candidate>& items, float max_logit, double sum) {
  // -sum p ln p = ln sum - sum p (logit - max)
  double weighted = 0.0;
  for (const Candidate& item : items) {
    const float below = item.logit - max_logit;
    weighted += static_cast<double>(exp_f32(below)) * static_cast<double>(below);
  }
  return std::log(sum) - weighted / sum;
}

/// Keeps the candidates with the least `distance` (nats, >= 0) until `reached(sum of weights, sum
/// of all weights)`, equals in the order `before`. Sums the weights by distance first, so that only
/// the candidates at the boundary need sorting: a nucleus can have tens of thousands of tokens.
template <typename Distance, typename Before, typename Reached>
void keep_nearest(std::vector<Candidate>& items, float max_logit, Distance distance, Before before,
                  Reached reached) {
  constexpr int kBuckets = 512;
  constexpr double kBucketsPerNat = 16.0;
  const auto bucket_of = [&](const Candidate& item) {
    return static_cast<int>(std::min(distance(item) * kBucketsPerNat, kBuckets - 1.0));
  };
  const auto weight = [max_logit](const Candidate& item) {
    return static_cast<double>(exp_f32(item.logit - max_logit));
  };
  std::array<double, kBuckets> sums{};
  for (const Candidate& item : items)
    sums[static_cast<size_t>(bucket_of(item))] += weight(item);
  double total = 0.0;
  for (const double sum : sums)
    total += sum;
  int boundary = 0;
  double sum = 0.0;
  while (boundary + 1 < kBuckets && !reached(sum + sums[static_cast<size_t>(boundary)], total)) {
    sum += sums[static_cast<size_t>(boundary)];
    ++boundary;
  }
  std::erase_if(items, [&](const Candidate& item) { return bucket_of(item) > boundary; });
  auto end = std::partition(items.begin(), items.end(),
                            [&](const Candidate& item) { return bucket_of(item) < boundary; });
  std::sort(end, items.end(), before);
  while (end != items.end() && (end == items.begin() || !reached(sum, total))) {
    sum += weight(*end);
    ++end;
  }
  items.erase(end, items.end());
}

}  // namespace

float exp_f32(float x) {
  // x = n ln 2 + r; e^r by a polynomial (Cephes' expf), 2^n by the exponent bits. Adding and
  // subtracting 1.5 * 2^23 rounds to the nearest integer and leaves it in the low bits.
  constexpr float kRounder = 12582912.0f;
  x = x < -87.0f ? -87.0f : x;
  const float rounded = x * 1.44269504088896341f + kRounder;
  const float n = rounded - kRounder;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float poly = 1.9875691500e-4f;
  poly = poly * r + 1.3981999507e-3f;
  poly = poly * r + 8.3334519073e-3f;
  poly = poly * r + 4.1665795894e-2f;
  poly = poly * r + 1.6666665459e-1f;
  poly = poly * r + 5.0000001201e-1f;
  const float power = (poly * r * r + r) + 1.0f;
  const auto exponent = std::bit_cast<uint32_t>(rounded) - std::bit_cast<uint32_t>(kRounder);
  return power * std::bit_cast<float>((exponent + 127) << 23);
}

void keep_top_k(Candidates& candidates, int k) {
  auto& items = candidates.items;
  if (k <= 0) return;
  const size_t n = std::min(static_cast<size_t>(k), items.size());
  if (!candidates.sorted) {
    const auto middle = items.begin() + static_cast<ptrdiff_t>(n);
    if (n < items.size()) std::nth_element(items.begin(), middle, items.end(), is_better);
    std::sort(items.begin(), middle, is_better);
    candidates.sorted = true;
  }
  items.resize(n);
}

void keep_top_n_sigma(Candidates& candidates, float n) {
  auto& items = candidates.items;
  double sum = 0.0;
  for (const Candidate& item : items)
    sum += static_cast<double>(item.logit);
  const double mean = sum / static_cast<double>(items.size());
  double squares = 0.0;
  for (const Candidate& item : items) {
    const double distance = static_cast<double>(item.logit) - mean;
    squares += distance * distance;
  }
  const double sigma = std::sqrt(squares / static_cast<double>(items.size()));
  const double best = static_cast<double>(items[best_idx(candidates)].logit);
  const auto least = static_cast<float>(best - static_cast<double>(n) * sigma);
  std::erase_if(items, [least](const Candidate& item) { return item.logit < least; });
}

void keep_typical(Candidates& candidates, float p) {
  if (p >= 1.0f) return;
  auto& items = candidates.items;
  const float max_logit = items[best_idx(candidates)].logit;
  const double sum = sum_weights(items, max_logit);
  // |-ln p - entropy|, with -ln p = ln sum + max - logit
  const double centre =
      std::log(sum) + static_cast<double>(max_logit) - entropy(items, max_logit, sum);
  const auto distance = [centre](const Candidate& item) {
    return std::abs(centre - static_cast<double>(item.logit));
  };
  const auto before = [&](const Candidate& a, const Candidate& b) {
    const double distance_a = distance(a);
    const double distance_b = distance(b);
    return distance_a < distance_b || (distance_a == distance_b && is_better(a, b));
  };
  keep_nearest(items, max_logit, distance, before, [p](double reached, double total) {
    return reached > (static_cast<double>(p) + kProbabilityTolerance) * total;
  });
  candidates.sorted = false;
}

void keep_top_p(Candidates& candidates, float p) {
  if (p >= 1.0f) return;
  auto& items = candidates.items;
  const float max_logit = items[best_idx(candidates)].logit;
  const double part = static_cast<double>(p) - kProbabilityTolerance;
  if (!candidates.sorted) {
    keep_nearest(
        items, max_logit,
        [max_logit](const Candidate& item) { return static_cast<double>(max_logit - item.logit); },
        is_better, [part](double sum, double total) { return sum >= part * total; });
    return;
  }
  const double limit = part * sum_weights(items, max_logit);
  double sum = 0.0;
  size_t n = 0;
  do {
    sum += static_cast<double>(exp_f32(items[n].logit - max_logit));
    ++n;
  } while (n < items.size() && sum < limit);
  items.resize(n);
}

void keep_min_p(Candidates& candidates, float p) {
  if (p <= 0.0f) return;
  const float least = candidates.items[best_idx(candidates)].logit + std::log(std::min(p, 1.0f));
  std::erase_if(candidates.items, [least](const Candidate& item) { return item.logit < least; });
}

void exclude_top_choices(Candidates& candidates, float threshold) {
  auto& items = candidates.items;
  const float max_logit = items[best_idx(candidates)].logit;
  const double least_weight = static_cast<double>(threshold) * sum_weights(items, max_logit);
  const auto is_top = [&](const Candidate& item) {
    return static_cast<double>(exp_f32(item.logit - max_logit)) >= least_weight;
  };
  const Candidate* last = nullptr;  // the least likely of the top choices
  for (const Candidate& item : items) {
    if (is_top(item) && (!last || is_better(*last, item))) last = &item;
  }
  if (!last) return;
  const int32_t kept = last->id;
  std::erase_if(items, [&](const Candidate& item) { return item.id != kept && is_top(item); });
}

void apply_temperature(Candidates& candidates, float temperature, float range, float exponent) {
  auto& items = candidates.items;
  if (range > 0.0f) {
    if (items.size() < 2) return;
    const float max_logit = items[best_idx(candidates)].logit;
    const double now = entropy(items, max_logit, sum_weights(items, max_logit));
    const double most = std::log(static_cast<double>(items.size()));
    const double low = std::max(0.0, static_cast<double>(temperature - range));
    const double high = static_cast<double>(temperature + range);
    const double part = std::pow(std::clamp(now / most, 0.0, 1.0), static_cast<double>(exponent));
    // A temperature of nearly 0 would make logits infinite.
    temperature = static_cast<float>(std::max(low + (high - low) * part, 1e-6));
  }
  for (Candidate& item : items)
    item.logit /= temperature;
}

size_t draw(const Candidates& candidates, TokenRandom& random) {
  // Minimising E / p is maximising logit - ln E, with E = -ln u. A candidate can only win if
  // E < e^(logit - best), and E >= 1 - u: comparing the power of two under 1 - u with that bound
  // rejects nearly all of a large vocabulary without a logarithm.
  const auto& items = candidates.items;
  const auto score = [&](const Candidate& item, uint32_t word) {
    return static_cast<double>(item.logit) - std::log(-std::log(TokenRandom::to_unit(word)));
  };
  size_t winner = best_idx(candidates);
  double best = score(items[winner], random.token_word(items[winner].id));
  for (size_t i = 0; i < items.size(); ++i) {
    const Candidate& item = items[i];
    const double margin = static_cast<double>(item.logit) - best;
    if (margin < -23.0) continue;  // -ln E is at most 33 ln 2
    const uint32_t word = random.token_word(item.id);
    const int log2_below = 63 - std::countl_zero(2 * uint64_t{~word} + 1) - 33;
    if (log2_below * 0.69314718 > margin + 1e-6) continue;
    const double value = score(item, word);
    if (value > best || (value == best && item.id < items[winner].id)) {
      best = value;
      winner = i;
    }
  }
  return winner;
}

double probability_of(const Candidates& candidates, size_t idx) {
  const float max_logit = candidates.items[best_idx(candidates)].logit;
  return static_cast<double>(exp_f32(candidates.items[idx].logit - max_logit)) /
         sum_weights(candidates.items, max_logit);
}

void keep_mirostat_v1(Candidates& candidates, float mu, int vocab_size) {
  auto& items = candidates.items;
  // Only the best matter for the estimate, and k rarely exceeds them by much.
  const size_t n_estimate = std::min<size_t>(kMirostatTokens, items.size());
  const auto middle = items.begin() + static_cast<ptrdiff_t>(n_estimate);
  if (n_estimate < items.size()) std::nth_element(items.begin(), middle, items.end(), is_better);
  std::sort(items.begin(), middle, is_better);
  double sum_tb = 0.0;
  double sum_tt = 0.0;
  for (size_t i = 0; i + 1 < n_estimate; ++i) {
    const double t = std::log(static_cast<double>(i + 2) / static_cast<double>(i + 1));
    const double b = static_cast<double>(items[i].logit) - static_cast<double>(items[i + 1].logit);
    sum_tb += t * b;
    sum_tt += t * t;
  }
  const double s = sum_tt > 0.0 ? sum_tb / sum_tt : 1.0;
  const double epsilon = s - 1.0;
  const double k = std::pow((epsilon * std::exp2(static_cast<double>(mu))) /
                                (1.0 - std::pow(static_cast<double>(vocab_size), -epsilon)),
                            1.0 / s);
  // Not a number (s = 0 or 1) and overflow mean "no truncation".
  const bool truncates = k < static_cast<double>(items.size());
  keep_top_k(candidates, truncates ? std::max(static_cast<int>(k), 1) : 0);
}

void keep_mirostat_v2(Candidates& candidates, float mu) {
  auto& items = candidates.items;
  const Candidate best = items[best_idx(candidates)];
  // -log2 p <= mu  <=>  logit >= max + ln sum - mu ln 2
  const double least = static_cast<double>(best.logit) + std::log(sum_weights(items, best.logit)) -
                       static_cast<double>(mu) * 0.693147180559945309;
  std::erase_if(items, [&](const Candidate& item) {
    return item.id != best.id && static_cast<double>(item.logit) < least;
  });
}

}  // namespace dsctl::engine
