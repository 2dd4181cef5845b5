#include "engine/cpu/moe.h"

#include <algorithm>
#include <cassert>
#include <cmath>

namespace dsctl::engine {
namespace {

/// llama.cpp's floor under the sum of the chosen scores: the smallest normal f16.
constexpr float kMinScoreSum = 6.103515625e-5f;

void make_scores(const Routing& routing, const float* logits, float* scores) {
  const int n = routing.n_experts;
  switch (routing.gating) {
    case ExpertGating::kSigmoid:
      for (int i = 0; i < n; ++i)
        scores[i] = 1.0f / (1.0f + std::exp(-logits[i]));
      return;
    case ExpertGating::kSoftmax: {
      const float max_logit = *std::max_element(logits, logits + n);
      float sum = 0.0f;
      for (int i = 0; i < n; ++i) {
        scores[i] = std::exp(logits[i] - max_logit);
        sum += scores[i];
      }
      for (int i = 0; i < n; ++i)
        scores[i] /= sum;
      return;
    }
  }
}

float score_of_group(const float* scores, int n, GroupScore kind) {
  float best = -INFINITY;
  float second = -INFINITY;
  for (int i = 0; i < n; ++i) {
    if (scores[i] > best) {
      second = best;
      best = scores[i];
    } else if (scores[i] > second) {
      second = scores[i];
    }
  }
  return kind == GroupScore::kBest || n == 1 ? best : best + second;
}

/// Excludes all but the best groups: their scores become -inf.
void limit_groups(const Routing& routing, float* scores) {
  const int group_size = routing.n_experts / routing.n_groups;
  const auto score = [&](int group) {
    return score_of_group(scores + group * group_size, group_size, routing.group_score);
  };
  for (int n_left = routing.n_groups; n_left > routing.n_used_groups; --n_left) {
    // The worst group goes; of equal ones the last.
    int worst = -1;
    float worst_score = 0.0f;
    for (int group = 0; group < routing.n_groups; ++group) {
      if (scores[group * group_size] == -INFINITY) continue;
      const float own = score(group);
      if (worst < 0 || own <= worst_score) {
        worst = group;
        worst_score = own;
      }
    }
    if (worst < 0) return;
    std::fill_n(scores + worst * group_size, group_size, -INFINITY);
  }
}

}  // namespace

void choose_experts(const Routing& routing, const float* logits, const float* bias,
                    int32_t* experts, float* weights, float* scratch) {
  const int n = routing.n_experts;
  float* scores = scratch;
  float* choice = scratch + n;
  make_scores(routing, logits, scores);
  for (int i = 0; i < n; ++i) {
    choice[i] = bias != nullptr ? scores[i] + bias[i] : scores[i];
    // An expert that is not a number comes last, before those that are excluded.
    if (!(choice[i] > -INFINITY)) choice[i] = -3e38f;
  }
  if (routing.n_used_groups < routing.n_groups) limit_groups(routing, choice);
  for (int k = 0; k < routing.n_used; ++k) {
    const auto best = static_cast<int32_t>(std::max_element(choice, choice + n) - choice);
    experts[k] = best;
    choice[best] = -INFINITY;
  }
  std::sort(experts, experts + routing.n_used);
  float sum = 0.0f;
  for (int k = 0; k < routing.n_used; ++k) {
    weights[k] = scores[experts[k]];
    sum += weights[k];
  }
  const float factor =
      routing.is_normalised ? routing.scale / std::max(sum, kMinScoreSum) : routing.scale;
  for (int k = 0; k < routing.n_used; ++k)
    weights[k] *= factor;
}

ExpertPlan::ExpertPlan(int max_tokens, int n_used, int n_local_experts) {
  const size_t n_pairs = static_cast<size_t>(max_tokens) * static_cast<size_t>(n_used);
  tokens_.reserve(n_pairs);
  pairs_.reserve(n_pairs);
  starts_.resize(static_cast<size_t>(n_local_experts) + 1);
}

void ExpertPlan::assign(const int32_t* experts, int n_tokens, int n_used, int first_expert) {
  n_used_ = n_used;
  const int64_t n = int64_t{n_tokens} * n_used;
  const auto n_local = static_cast<int32_t>(starts_.size()) - 1;
  const auto local = [&](int64_t i) {
    const int32_t expert = experts[i] - first_expert;
    return expert >= 0 && expert < n_local ? expert : -1;
  };
  // Counts, then places: a counting sort, which keeps the tokens' order.
  std::fill(starts_.begin(), starts_.end(), 0);
  for (int64_t i = 0; i < n; ++i) {
    if (local(i) >= 0) ++starts_[static_cast<size_t>(local(i)) + 1];
  }
  for (size_t e = 1; e < starts_.size(); ++e)
    starts_[e] += starts_[e - 1];
  tokens_.resize(static_cast<size_t>(starts_.back()));
  pairs_.assign(static_cast<size_t>(n), -1);
  for (int64_t i = 0; i < n; ++i) {
    if (local(i) < 0) continue;
    const int32_t place = starts_[static_cast<size_t>(local(i))]++;
    tokens_[static_cast<size_t>(place)] = static_cast<int32_t>(i / n_used);
    pairs_[static_cast<size_t>(i)] = place;
  }
  // Each start has moved to its expert's end.
  for (size_t e = starts_.size() - 1; e > 0; --e)
    starts_[e] = starts_[e - 1];
  starts_[0] = 0;
}

}  // namespace dsctl::engine
