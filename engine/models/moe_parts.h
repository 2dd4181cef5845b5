// Parts that mixtures of experts share: how their tensors are named and cut over the ranks.
#pragma once

#include "engine/model_config.h"
#include "engine/ops.h"
#include "engine/weights.h"

namespace dsctl::engine {

/// This rank's share of the experts. Ranks take columns of every expert, so that all have the same
/// work whatever the tokens choose; only where an expert has fewer blocks than there are ranks do
/// they take whole experts.
struct ExpertShare {
  Range experts;  // of all the layer's
  Range ffn;      // columns of each
  Range shared;   // columns of the shared expert; empty without one
};

/// Throws Error when there are fewer experts, or blocks of the shared one, than ranks.
ExpertShare make_expert_share(const ModelConfig& config, const WeightLoader& loader);

/// ffn_norm, ffn_gate_inp, exp_probs_b.bias, ffn_{gate,up,down}_exps or ffn_gate_up_exps (gate's
/// rows first), ffn_{gate,up,down}_shexp.
struct MoeWeights {
  VectorPtr norm;            // (dim)
  MatrixPtr router;          // (n_experts, dim)
  VectorPtr router_bias;     // (n_experts) or null
  MatrixPtr experts;         // this rank's share
  MatrixPtr shared_gate_up;  // two parts of (this rank's columns, dim), or null
  MatrixPtr shared_down;     // (dim, this rank's columns), or null

  /// The arguments of Ops::moe_ffn.
  MoeFfn args(Buffer x, float eps) const;
};
MoeWeights load_moe(const ModelConfig& config, const ExpertShare& share, int layer_idx,
                    WeightLoader& loader);

}  // namespace dsctl::engine
