// phi3: Phi-3, 3.5 and 4-mini. As llama, but q, k and v are one tensor, gate and up another; rope
// on the two halves of a head, of which perhaps only the first part turns, with factors for short
// and long contexts (longrope); and perhaps a sliding window in all layers.
#include "engine/models/models.h"
#include "engine/models/parts.h"

namespace dsctl::engine {
namespace {

class Phi3 final : public Model {
 public:
  Phi3(const ModelConfig& config, const LoadOptions& options, WeightLoader& loader)
      : config_(config),
        partition_(make_partition(config, loader)),
        rope_(load_rope(config.rope, options, loader)),
        outer_(load_outer(config, partition_.tokens, loader)) {
    for (int i = 0; i < config.n_layers; ++i) {
      layers_.push_back({load_attention(config, partition_, i, loader),
                         load_ffn(config, partition_.ffn, i, loader)});
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
      const auto& [attn, ffn] = layers_[static_cast<size_t>(i)];
      ops.norm_linear({.out = qkv,
                       .x = x,
                       .norm = attn.norm.get(),
                       .weight = attn.qkv.get(),
                       .bias = attn.qkv_bias.get(),
                       .eps = eps});
      ops.rope_store({.qkv = qkv, .heads = partition_.heads, .layer_idx = i, .rope = rope_});
      ops.attention({.out = attention,
                     .qkv = qkv,
                     .heads = partition_.heads,
                     .layer_idx = i,
                     .out_col = partition_.output_pad,
                     .scale = config_.attention_scale,
                     .window = config_.window});
      if (i + 1 == config_.n_layers) ops.keep_sampled_rows({x, attention});
      ops.linear_add({.x = x, .input = attention, .weight = attn.output.get()});
      ops.gated_ffn({.x = x,
                     .norm = ffn.norm.get(),
                     .gate_up = ffn.gate_up.get(),
                     .down = ffn.down.get(),
                     .activation = Activation::kSilu,
                     .eps = eps});
    }
    ops.head({.x = x, .norm = outer_.norm.get(), .weight = outer_.head.get(), .eps = eps});
  }

 private:
  struct Layer {
    AttentionWeights attention;
    FfnWeights ffn;
  };

  ModelConfig config_;
  Partition partition_;
  RopeId rope_;
  OuterWeights outer_;
  std::vector<Layer> layers_;
  StepBuffers buffers_;
};

}  // namespace

ModelConfig read_phi3_config(const ConfigReader& reader) {
  ModelConfig config = read_common_config(reader, RopeStyle::kNeox);
  config.fused_gate_up = true;
  // Files name no kind of scaling; that there are factors says it.
  if (reader.file().find_tensor("rope_factors_long.weight") != nullptr)
    config.rope.scaling = RopeScaling::kLongRope;
  config.window = reader.get_count("attention.sliding_window", 1 << 28);
  return config;
}

std::unique_ptr<Model> load_phi3(const ModelConfig& config, const LoadOptions& options,
                                 WeightLoader& loader) {
  return std::make_unique<Phi3>(config, options, loader);
}

}  // namespace dsctl::engine
