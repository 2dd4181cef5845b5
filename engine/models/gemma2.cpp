// gemma2: Gemma 2. Scaled embedding, norms before and after each branch, GELU, soft caps on the
// attention's scores and on the logits, and a sliding window in every other layer.
#include <cmath>

#include "engine/models/models.h"
#include "engine/models/parts.h"

namespace dsctl::engine {
namespace {

class Gemma2 final : public Model {
 public:
  Gemma2(const ModelConfig& config, const LoadOptions& options, WeightLoader& loader)
      : config_(config),
        partition_(make_partition(config, loader)),
        rope_(load_rope(config.rope, options, loader)),
        outer_(load_outer(config, partition_.tokens, loader)) {
    for (int i = 0; i < config.n_layers; ++i) {
      layers_.push_back({load_attention(config, partition_, i, loader),
                         load_ffn(config, partition_.ffn, i, loader),
                         loader.vector(block_name(i, "post_attention_norm.weight"), config.dim),
                         loader.vector(block_name(i, "post_ffw_norm.weight"), config.dim)});
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
      const auto& [attn, ffn, post_attention_norm, post_ffn_norm] = layers_[static_cast<size_t>(i)];
      ops.norm_linear(
          {.out = qkv, .x = x, .norm = attn.norm.get(), .weight = attn.qkv.get(), .eps = eps});
      ops.rope_store({.qkv = qkv, .heads = partition_.heads, .layer_idx = i, .rope = rope_});
      ops.attention({.out = attention,
                     .qkv = qkv,
                     .heads = partition_.heads,
                     .layer_idx = i,
                     .out_col = partition_.output_pad,
                     .scale = config_.attention_scale,
                     .softcap = config_.attention_softcap,
                     .window = config_.is_local(i) ? config_.window : 0});
      if (i + 1 == config_.n_layers) ops.keep_sampled_rows({x, attention});
      ops.linear_add({.x = x,
                      .input = attention,
                      .weight = attn.output.get(),
                      .post_norm = post_attention_norm.get(),
                      .eps = eps});
      ops.gated_ffn({.x = x,
                     .norm = ffn.norm.get(),
                     .gate_up = ffn.gate_up.get(),
                     .down = ffn.down.get(),
                     .post_norm = post_ffn_norm.get(),
                     .activation = Activation::kGeluTanh,
                     .eps = eps});
    }
    ops.head({.x = x,
              .norm = outer_.norm.get(),
              .weight = outer_.head.get(),
              .softcap = config_.logit_softcap,
              .eps = eps});
  }

 private:
  struct Layer {
    AttentionWeights attention;
    FfnWeights ffn;
    VectorPtr post_attention_norm;  // (dim)
    VectorPtr post_ffn_norm;        // (dim)
  };

  ModelConfig config_;
  Partition partition_;
  RopeId rope_;
  OuterWeights outer_;
  std::vector<Layer> layers_;
  StepBuffers buffers_;
};

}  // namespace

ModelConfig read_gemma2_config(const ConfigReader& reader) {
  ModelConfig config = read_common_config(reader, RopeStyle::kNeox);
  config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  // Files from before these keys have the numbers of all Gemma 2 models.
  config.attention_softcap =
      static_cast<float>(reader.find_float("attn_logit_softcapping").value_or(50.0));
  config.logit_softcap =
      static_cast<float>(reader.find_float("final_logit_softcapping").value_or(30.0));
  config.window = reader.find_int("attention.sliding_window", 1 << 28).value_or(4096);
  // query_pre_attn_scalar is not in the file: it is the head size, but for the 27B model.
  const bool is_27b = config.n_layers == 46;
  if (is_27b && !reader.find_float("attention.scale")) {
    config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.dim) / config.n_heads);
  }
  for (int i = 0; i < config.n_layers; ++i)
    config.local_layers.push_back(i % 2 == 0);
  return config;
}

std::unique_ptr<Model> load_gemma2(const ModelConfig& config, const LoadOptions& options,
                                   WeightLoader& loader) {
  return std::make_unique<Gemma2>(config, options, loader);
}

}  // namespace dsctl::engine
