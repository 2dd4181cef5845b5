#include "engine/models/moe_parts.h"

#include "engine/models/parts.h"

namespace dsctl::engine {
namespace {

ExpertViews expert_views(const ModelConfig& config, const ExpertShare& share, int layer_idx,
                         const WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  const int64_t n = config.moe.routing.n_experts;
  const int64_t ffn_dim = config.moe.ffn_dim;
  const Range all_inputs{0, config.dim};
  ExpertViews views;
  const std::string fused = name("ffn_gate_up_exps.weight");
  if (loader.has(fused)) {
    const auto half = [&](int64_t first_row) {
      return loader.stack(fused, n, 2 * ffn_dim, config.dim, share.experts,
                          {first_row + share.ffn.begin, first_row + share.ffn.end}, all_inputs);
    };
    views.gate = half(0);
    views.up = half(ffn_dim);
  } else {
    views.gate = loader.stack(name("ffn_gate_exps.weight"), n, ffn_dim, config.dim, share.experts,
                              share.ffn, all_inputs);
    views.up = loader.stack(name("ffn_up_exps.weight"), n, ffn_dim, config.dim, share.experts,
                            share.ffn, all_inputs);
  }
  views.down = loader.stack(name("ffn_down_exps.weight"), n, config.dim, ffn_dim, share.experts,
                            {0, config.dim}, share.ffn);
  views.first_expert = static_cast<int>(share.experts.begin);
  views.routing = config.moe.routing;
  return views;
}

}  // namespace

ExpertShare make_expert_share(const ModelConfig& config, const WeightLoader& loader) {
  const Shard& shard = loader.shard();
  const int64_t n_experts = config.moe.routing.n_experts;
  const int64_t block = largest_block(config, loader, "ffn_down_exps.weight");
  ExpertShare share{{0, n_experts}, {0, config.moe.ffn_dim}, {}};
  if ((config.moe.ffn_dim + block - 1) / block >= shard.size) {
    share.ffn = split_ffn(config, loader, config.moe.ffn_dim, "ffn_down_exps");
  } else {
    share.experts = shard.split(n_experts, "experts");
  }
  if (config.moe.shared_ffn_dim > 0)
    share.shared = split_ffn(config, loader, config.moe.shared_ffn_dim, "ffn_down_shexp");
  return share;
}

MoeFfn MoeWeights::args(Buffer x, float eps) const {
  return {.x = x,
          .norm = norm.get(),
          .router = router.get(),
          .router_bias = router_bias.get(),
          .experts = experts.get(),
          .shared_gate_up = shared_gate_up.get(),
          .shared_down = shared_down.get(),
          .activation = Activation::kSilu,
          .eps = eps};
}

MoeWeights load_moe(const ModelConfig& config, const ExpertShare& share, int layer_idx,
                    WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  const int n_experts = config.moe.routing.n_experts;
  MoeWeights weights;
  weights.norm = loader.vector(name("ffn_norm.weight"), config.dim);
  weights.router =
      loader.matrix({loader.replicated(name("ffn_gate_inp.weight"), n_experts, config.dim)});
  weights.router_bias = loader.find_vector(name("exp_probs_b.bias"), n_experts);
  weights.experts = loader.ops().load_experts(expert_views(config, share, layer_idx, loader));
  const int64_t shared_dim = config.moe.shared_ffn_dim;
  if (shared_dim == 0) return weights;
  weights.shared_gate_up = loader.ops().load_gate_up(
      loader.column(name("ffn_gate_shexp.weight"), shared_dim, config.dim, share.shared),
      loader.column(name("ffn_up_shexp.weight"), shared_dim, config.dim, share.shared));
  weights.shared_down = loader.matrix(
      {loader.row(name("ffn_down_shexp.weight"), config.dim, shared_dim, share.shared)});
  return weights;
}

}  // namespace dsctl::engine
