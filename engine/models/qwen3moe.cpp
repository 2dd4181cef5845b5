// qwen3moe: the Qwen 3 mixtures of experts. Attention as in qwen3; every layer has experts, none of
// them shared.
#include "engine/models/models.h"
#include "engine/models/moe_parts.h"
#include "engine/models/parts.h"

namespace dsctl::engine {
namespace {

class Qwen3Moe final : public Model {
 public:
  Qwen3Moe(const ModelConfig& config, const LoadOptions& options, WeightLoader& loader)
      : config_(config),
        partition_(make_partition(config, loader)),
        rope_(load_rope(config.rope, options, loader)),
        outer_(load_outer(config, partition_.tokens, loader)) {
    const ExpertShare experts = make_expert_share(config, loader);
    for (int i = 0; i < config.n_layers; ++i) {
      layers_.push_back(
          {load_attention(config, partition_, i, loader), load_moe(config, experts, i, loader)});
    }
    // Last: the weights have proved the sizes.
    buffers_ = make_buffers(config, partition_, loader.ops());
  }

  KvShape kv_shape() const override { return partition_.kv_shape(); }

  void forward(Ops& ops) const override {
    const float eps = config_.norm_eps;
    const auto [x, qkv, attention] = buffers_;
    ops.embed(x, *outer_.embedding, config_.embedding_scale);
    for (int i = 0; i < config_.n_layers; ++i) {
      const auto& [attn, moe] = layers_[static_cast<size_t>(i)];
      ops.norm_linear(
          {.out = qkv, .x = x, .norm = attn.norm.get(), .weight = attn.qkv.get(), .eps = eps});
      ops.rope_store({.qkv = qkv,
                      .heads = partition_.heads,
                      .layer_idx = i,
                      .q_norm = attn.q_norm.get(),
                      .k_norm = attn.k_norm.get(),
                      .eps = eps,
                      .rope = rope_});
      ops.attention({.out = attention,
                     .qkv = qkv,
                     .heads = partition_.heads,
                     .layer_idx = i,
                     .out_col = partition_.output_pad,
                     .scale = config_.attention_scale});
      if (i + 1 == config_.n_layers) ops.keep_sampled_rows({x, attention});
      ops.linear_add({.x = x, .input = attention, .weight = attn.output.get()});
      ops.moe_ffn(moe.args(x, eps));
    }
    ops.head({.x = x, .norm = outer_.norm.get(), .weight = outer_.head.get(), .eps = eps});
  }

 private:
  struct Layer {
    AttentionWeights attention;
    MoeWeights moe;
  };

  ModelConfig config_;
  Partition partition_;
  RopeId rope_;
  OuterWeights outer_;
  std::vector<Layer> layers_;
  StepBuffers buffers_;
};

}  // namespace

ModelConfig read_qwen3moe_config(const ConfigReader& reader) {
  ModelConfig config = read_base_config(reader);
  read_attention_config(reader, RopeStyle::kNeox, config);
  config.qk_norm = true;
  config.moe = read_moe_config(reader, {.is_normalised = true});
  return config;
}

std::unique_ptr<Model> load_qwen3moe(const ModelConfig& config, const LoadOptions& options,
                                     WeightLoader& loader) {
  return std::make_unique<Qwen3Moe>(config, options, loader);
}

}  // namespace dsctl::engine
