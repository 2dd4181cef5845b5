// Routing: how a mixture of experts chooses a token's experts and how much each of them counts.
#pragma once

namespace dsctl::engine {

/// What makes scores of the router's logits.
enum class ExpertGating { kSoftmax, kSigmoid };

/// How a group's worth is judged: by its best score (DeepSeek-V2) or the sum of its two best (V3).
enum class GroupScore { kBest, kBestTwo };

/// Scores come from all experts; the choice is made by score + bias, if there is a bias. Experts
/// lie in n_groups runs of equal length: of these the n_used_groups best stay in the choice. The
/// n_used best experts are chosen; of equal ones the lower index wins. A chosen expert counts by
/// its score without the bias, divided by the sum over the chosen when they are normalised, times
/// scale.
struct Routing {
  int n_experts = 0;
  int n_used = 0;
  ExpertGating gating = ExpertGating::kSoftmax;
  int n_groups = 1;
  int n_used_groups = 1;
  GroupScore group_score = GroupScore::kBest;
  bool is_normalised = false;
  float scale = 1.0f;
};

}  // namespace dsctl::engine
