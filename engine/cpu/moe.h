// Mixtures of experts on the CPU: which experts a token has, and the tokens in their experts'
// order. The products themselves are grouped linear layers (linear.h).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/routing.h"

namespace dsctl::engine {

/// One token's experts by the router's `logits` (n_experts) and `bias` (n_experts) or null:
/// `experts` (n_used) in ascending order, with their `weights` (n_used). `scratch` holds 2 *
/// n_experts.
void choose_experts(const Routing& routing, const float* logits, const float* bias,
                    int32_t* experts, float* weights, float* scratch);

/// A step's pairs of token and expert, for the experts of this rank, expert after expert and in
/// each by token.
class ExpertPlan {
 public:
  ExpertPlan(int max_tokens, int n_used, int n_local_experts);

  /// `experts` (n_tokens, n_used) of all the layer's; this rank has those from first_expert on.
  void assign(const int32_t* experts, int n_tokens, int n_used, int first_expert);

  /// Pairs [starts[e], starts[e + 1]) are those of local expert e: (n_local_experts + 1).
  std::span<const int32_t> starts() const { return starts_; }
  /// The token of each pair.
  std::span<const int32_t> tokens() const { return tokens_; }
  /// The pair of a token's chosen expert, or -1 when another rank has the expert.
  int32_t pair(int64_t token, int choice) const {
    return pairs_[static_cast<size_t>(token * n_used_ + choice)];
  }

 private:
  int n_used_ = 0;
  std::vector<int32_t> starts_;
  std::vector<int32_t> tokens_;  // (pairs)
  std::vector<int32_t> pairs_;   // (n_tokens, n_used)
};

}  // namespace dsctl::engine
