// gemma3: text part of Gemma 3. Scaled embedding, norms before and after each branch, per-head
// norms of q and k, GELU, and layers with a sliding window (and a rope of their own) between global
// ones.
#include <cmath>
#include <variant>

#include "engine/error.h"
#include "engine/models/models.h"
#include "engine/models/parts.h"

namespace dsctl::engine {
namespace {

class Gemma3 final : public Model {
 public:
  Gemma3(const ModelConfig& config, const LoadOptions& options, WeightLoader& loader)
      : config_(config),
        partition_(make_partition(config, loader)),
        rope_(load_rope(config.rope, options, loader)),
        local_rope_(load_rope(config.local_rope, options, loader)),
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
      const bool local = config_.is_local(i);
      ops.norm_linear(
          {.out = qkv, .x = x, .norm = attn.norm.get(), .weight = attn.qkv.get(), .eps = eps});
      ops.rope_store({.qkv = qkv,
                      .heads = partition_.heads,
                      .layer_idx = i,
                      .q_norm = attn.q_norm.get(),
                      .k_norm = attn.k_norm.get(),
                      .eps = eps,
                      .rope = local ? local_rope_ : rope_});
      ops.attention({.out = attention,
                     .qkv = qkv,
                     .heads = partition_.heads,
                     .layer_idx = i,
                     .out_col = partition_.output_pad,
                     .scale = config_.attention_scale,
                     .softcap = config_.attention_softcap,
                     .window = local ? config_.window : 0});
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
  RopeId local_rope_;
  OuterWeights outer_;
  std::vector<Layer> layers_;
  StepBuffers buffers_;
};

/// attention.sliding_window_pattern is a period (every n-th layer is global) or, in newer files, a
/// flag for each layer; without it the period is 6.
std::vector<bool> read_local_layers(const ConfigReader& reader, int n_layers) {
  const std::string key = reader.full_key("attention.sliding_window_pattern");
  std::vector<bool> local(static_cast<size_t>(n_layers));
  const gguf::Value* value = reader.file().find(key);
  if (value == nullptr || !std::holds_alternative<gguf::ArrayValue>(value->data)) {
    const int period = reader.find_int("attention.sliding_window_pattern", 1024).value_or(6);
    for (int i = 0; i < n_layers; ++i)
      local[static_cast<size_t>(i)] = i % period != period - 1;
    return local;
  }
  const auto* flags =
      std::get_if<std::vector<int64_t>>(&std::get<gguf::ArrayValue>(value->data).elements);
  if (flags == nullptr || flags->size() < local.size()) {
    throw Error(key + ": expected a flag for each of the " + std::to_string(n_layers) + " layers");
  }
  for (size_t i = 0; i < local.size(); ++i)
    local[i] = (*flags)[i] != 0;
  return local;
}

}  // namespace

ModelConfig read_gemma3_config(const ConfigReader& reader) {
  ModelConfig config = read_common_config(reader, RopeStyle::kNeox);
  config.qk_norm = true;
  config.embedding_scale = std::sqrt(static_cast<float>(config.dim));
  // The 27B model alone scales by the width of a head as if the heads filled the model's width.
  const bool is_27b = config.n_layers == 62;
  if (is_27b && !reader.find_float("attention.scale")) {
    config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.dim) / config.n_heads);
  }
  if (!reader.find_float("rope.freq_base")) config.rope.params.freq_base = 1e6;
  config.window = reader.get_int("attention.sliding_window", 1 << 28);
  config.local_layers = read_local_layers(reader, config.n_layers);
  config.local_rope.scaling = RopeScaling::kNone;
  config.local_rope.params = {
      .style = RopeStyle::kNeox,
      .n_dims = config.rope.params.n_dims,
      .freq_base = reader.find_float("rope.freq_base_swa").value_or(10000.0),
  };
  return config;
}

std::unique_ptr<Model> load_gemma3(const ModelConfig& config, const LoadOptions& options,
                                   WeightLoader& loader) {
  return std::make_unique<Gemma3>(config, options, loader);
}

}  // namespace dsctl::engine
