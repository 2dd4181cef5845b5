// deepseek2: DeepSeek-V2, V2-Lite, V3, R1 and Kimi-K2. Multi-head latent attention, of which the
// cache keeps one compressed row a token; a few dense layers, then mixtures of experts with shared
// ones. Files come with the up projections in one tensor (attn_kv_b) or, since April 2025, in two
// that suit the absorbed form (attn_k_b, attn_v_b).
#include <algorithm>
#include <cmath>

#include "engine/error.h"
#include "engine/models/models.h"
#include "engine/models/moe_parts.h"
#include "engine/models/parts.h"

namespace dsctl::engine {
namespace {

constexpr int kMaxRank = 1 << 16;
constexpr int kMaxHeadDim = 4096;

/// This rank's share: whole heads; the latent row of the cache is on every rank.
struct MlaPartition {
  Range heads;
  Range ffn;  // of dense layers
  Range tokens;
  ExpertShare experts;
  MlaShape shape;
  Range output_cols;  // inputs of attn_output, widened to whole blocks
  int output_pad = 0;
};

MlaPartition make_mla_partition(const ModelConfig& config, const WeightLoader& loader) {
  const Shard& shard = loader.shard();
  const MlaConfig& mla = config.mla;
  MlaPartition partition;
  partition.heads = shard.split(config.n_heads, "heads");
  partition.tokens = shard.split(config.vocab_size, "tokens");
  if (config.ffn_dim > 0) partition.ffn = split_ffn(config, loader, config.ffn_dim, "ffn_down");
  if (config.moe.n_dense_layers < config.n_layers)
    partition.experts = make_expert_share(config, loader);
  partition.shape = {.n_heads = static_cast<int>(partition.heads.size()),
                     .nope_dim = mla.nope_dim,
                     .rope_dim = mla.rope_dim,
                     .latent_dim = mla.latent_dim,
                     .value_dim = mla.value_dim};
  const Range own = partition.heads.times(mla.value_dim);
  partition.output_cols =
      widen_output(config, loader, own, int64_t{config.n_heads} * mla.value_dim);
  partition.output_pad = static_cast<int>(own.begin - partition.output_cols.begin);
  return partition;
}

struct MlaWeights {
  VectorPtr norm;     // (dim)
  MatrixPtr down;     // parts: q_a (q_lora_rank) or this rank's queries; kv_a (latent_cols)
  VectorPtr q_norm;   // (q_lora_rank) or null
  MatrixPtr q_up;     // (shape.q_cols(), q_lora_rank) or null
  VectorPtr kv_norm;  // (latent_dim)
  MatrixPtr k_up;     // W_k^T of this rank's heads
  MatrixPtr v_up;     // W_v
  MatrixPtr output;   // (dim, output_cols)
};

/// k_up and v_up. In attn_kv_b each head has its rows of W_k, then those of W_v; attn_k_b is W_k
/// turned over.
void load_up(const ModelConfig& config, Range heads, int layer_idx, WeightLoader& loader,
             MlaWeights& weights) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  const MlaConfig& mla = config.mla;
  const Range latent{0, mla.latent_dim};
  const Range nope{0, mla.nope_dim};
  const Range value{0, mla.value_dim};
  Ops& ops = loader.ops();
  if (loader.has(name("attn_k_b.weight"))) {
    weights.k_up = ops.load_heads(loader.stack(name("attn_k_b.weight"), config.n_heads,
                                               mla.latent_dim, mla.nope_dim, heads, latent, nope),
                                  HeadProduct::kPlain);
    weights.v_up = ops.load_heads(loader.stack(name("attn_v_b.weight"), config.n_heads,
                                               mla.value_dim, mla.latent_dim, heads, value, latent),
                                  HeadProduct::kPlain);
    return;
  }
  const auto rows_of_both = [&](Range rows) {
    return loader.stack(name("attn_kv_b.weight"), config.n_heads, mla.nope_dim + mla.value_dim,
                        mla.latent_dim, heads, rows, latent);
  };
  weights.k_up = ops.load_heads(rows_of_both(nope), HeadProduct::kTransposed);
  weights.v_up =
      ops.load_heads(rows_of_both({nope.end, nope.end + value.end}), HeadProduct::kPlain);
}

MlaWeights load_mla(const ModelConfig& config, const MlaPartition& partition, int layer_idx,
                    WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  const MlaConfig& mla = config.mla;
  const int64_t q_cols = int64_t{config.n_heads} * mla.q_head_dim();
  const Range own_q = partition.heads.times(mla.q_head_dim());
  MlaWeights weights;
  weights.norm = loader.vector(name("attn_norm.weight"), config.dim);
  const MatrixView kv =
      loader.replicated(name("attn_kv_a_mqa.weight"), partition.shape.latent_cols(), config.dim);
  if (mla.q_lora_rank > 0) {
    weights.down = loader.matrix(
        {loader.replicated(name("attn_q_a.weight"), mla.q_lora_rank, config.dim), kv});
    weights.q_norm = loader.vector(name("attn_q_a_norm.weight"), mla.q_lora_rank);
    weights.q_up =
        loader.matrix({loader.column(name("attn_q_b.weight"), q_cols, mla.q_lora_rank, own_q)});
  } else {
    weights.down =
        loader.matrix({loader.column(name("attn_q.weight"), q_cols, config.dim, own_q), kv});
  }
  weights.kv_norm = loader.vector(name("attn_kv_a_norm.weight"), mla.latent_dim);
  load_up(config, partition.heads, layer_idx, loader, weights);
  weights.output =
      loader.matrix({loader.row(name("attn_output.weight"), config.dim,
                                int64_t{config.n_heads} * mla.value_dim, partition.output_cols)});
  return weights;
}

class Deepseek2 final : public Model {
 public:
  Deepseek2(const ModelConfig& config, const LoadOptions& options, WeightLoader& loader)
      : config_(config),
        partition_(make_mla_partition(config, loader)),
        rope_(load_rope(config.rope, options, loader)),
        outer_(load_outer(config, partition_.tokens, loader)) {
    for (int i = 0; i < config.n_layers; ++i) {
      attention_.push_back(load_mla(config, partition_, i, loader));
      if (i < config.moe.n_dense_layers) {
        dense_.push_back(load_ffn(config, partition_.ffn, i, loader));
      } else {
        moe_.push_back(load_moe(config, partition_.experts, i, loader));
      }
    }
    // Last: the weights have proved the sizes.
    Ops& ops = loader.ops();
    const MlaShape& shape = partition_.shape;
    const int rank = config.mla.q_lora_rank;
    x_ = ops.new_buffer(config.dim);
    down_ = ops.new_buffer((rank > 0 ? rank : shape.q_cols()) + shape.latent_cols());
    q_ = rank > 0 ? ops.new_buffer(shape.q_cols()) : down_;
    heads_out_ = ops.new_buffer(static_cast<int>(partition_.output_cols.size()));
  }

  KvShape kv_shape() const override { return {.latent_dim = partition_.shape.latent_cols()}; }

  void forward(Ops& ops) const override {
    const float eps = config_.norm_eps;
    ops.embed(x_, *outer_.embedding, config_.embedding_scale);
    for (int i = 0; i < config_.n_layers; ++i) {
      const MlaWeights& attn = attention_[static_cast<size_t>(i)];
      attend(ops, attn, i);
      if (i + 1 == config_.n_layers) ops.keep_sampled_rows({x_, heads_out_});
      ops.linear_add({.x = x_, .input = heads_out_, .weight = attn.output.get()});
      if (i < config_.moe.n_dense_layers) {
        const FfnWeights& ffn = dense_[static_cast<size_t>(i)];
        ops.gated_ffn({.x = x_,
                       .norm = ffn.norm.get(),
                       .gate_up = ffn.gate_up.get(),
                       .down = ffn.down.get(),
                       .activation = Activation::kSilu,
                       .eps = eps});
      } else {
        ops.moe_ffn(moe_[static_cast<size_t>(i - config_.moe.n_dense_layers)].args(x_, eps));
      }
    }
    ops.head({.x = x_, .norm = outer_.norm.get(), .weight = outer_.head.get(), .eps = eps});
  }

 private:
  void attend(Ops& ops, const MlaWeights& attn, int layer_idx) const {
    const float eps = config_.norm_eps;
    const int rank = config_.mla.q_lora_rank;
    ops.norm_linear(
        {.out = down_, .x = x_, .norm = attn.norm.get(), .weight = attn.down.get(), .eps = eps});
    if (rank > 0) {
      ops.norm_linear({.out = q_,
                       .x = down_,
                       .x_cols = rank,
                       .norm = attn.q_norm.get(),
                       .weight = attn.q_up.get(),
                       .eps = eps});
    }
    ops.mla_store({.q = q_,
                   .kv = down_,
                   .kv_col = down_.n_cols - partition_.shape.latent_cols(),
                   .shape = partition_.shape,
                   .layer_idx = layer_idx,
                   .norm = attn.kv_norm.get(),
                   .eps = eps,
                   .rope = rope_});
    ops.mla_attention({.out = heads_out_,
                       .q = q_,
                       .shape = partition_.shape,
                       .layer_idx = layer_idx,
                       .out_col = partition_.output_pad,
                       .scale = config_.attention_scale,
                       .k_up = attn.k_up.get(),
                       .v_up = attn.v_up.get()});
  }

  ModelConfig config_;
  MlaPartition partition_;
  RopeId rope_;
  OuterWeights outer_;
  std::vector<MlaWeights> attention_;
  std::vector<FfnWeights> dense_;  // of the first layers
  std::vector<MoeWeights> moe_;    // of the others
  Buffer x_;                       // (rows, dim) the residual stream
  Buffer down_;                    // (rows, q_lora_rank or q_cols, then latent_cols)
  Buffer q_;                       // (rows, q_cols); down_ without q_lora_rank
  Buffer heads_out_;               // (rows, output_cols), zero where another rank's heads are
};

/// Files from before the keys for groups don't say how the model was trained to route; its number
/// of experts and their gating do. llama.cpp routes such files without groups.
void guess_groups(const ConfigReader& reader, Routing& routing) {
  if (reader.file().find(reader.full_key("expert_group_count")) != nullptr) return;
  const bool is_v3 = routing.gating == ExpertGating::kSigmoid && routing.n_experts == 256;
  const bool is_v2 = routing.gating == ExpertGating::kSoftmax && routing.n_experts == 160;
  constexpr int kGroups = 8;
  const int n_used_groups = is_v3 ? 4 : 3;
  const int n_choice = routing.n_experts / kGroups * n_used_groups;
  if ((!is_v3 && !is_v2) || routing.n_used > n_choice) return;
  routing.n_groups = kGroups;
  routing.n_used_groups = n_used_groups;
}

MlaConfig read_mla_config(const ConfigReader& reader) {
  // Newer files give the sizes of the cache as key_length and value_length.
  const auto length = [&](const char* key) {
    const auto expanded = reader.find_int(std::string(key) + "_mla", kMaxHeadDim);
    return expanded ? *expanded : reader.get_int(key, kMaxHeadDim);
  };
  MlaConfig mla;
  mla.q_lora_rank = reader.get_count("attention.q_lora_rank", kMaxRank);
  mla.latent_dim = reader.get_int("attention.kv_lora_rank", kMaxHeadDim);
  mla.rope_dim = reader.get_int("rope.dimension_count", kMaxHeadDim);
  mla.value_dim = length("attention.value_length");
  const int key_length = length("attention.key_length");
  mla.nope_dim = key_length - mla.rope_dim;
  if (mla.nope_dim < 1) {
    throw Error(reader.full_key("rope.dimension_count") + ": " + std::to_string(mla.rope_dim) +
                ", expected less than the key length " + std::to_string(key_length));
  }
  return mla;
}

/// YaRN multiplies the scores by the square of 1 + 0.1 mscale_all_dim ln(factor); the rope then
/// turns without growing. yarn_log_multiplier is 0.1 mscale_all_dim; without it only the rope
/// grows.
void scale_for_yarn(const ConfigReader& reader, ModelConfig& config) {
  const double log_multiplier = reader.find_float("rope.scaling.yarn_log_multiplier").value_or(0.0);
  if (config.rope.scaling != RopeScaling::kYarn || log_multiplier == 0.0) return;
  RopeParams& params = config.rope.params;
  const double log_factor = std::log(1.0 / params.freq_scale);
  const double mscale = 1.0 + log_multiplier * log_factor;
  config.attention_scale = static_cast<float>(config.attention_scale * mscale * mscale);
  if (params.ext_factor != 0.0) params.attn_factor /= 1.0 + 0.1 * log_factor;
}

}  // namespace

ModelConfig read_deepseek2_config(const ConfigReader& reader) {
  ModelConfig config = read_base_config(reader);
  // Layers that predict further tokens come last, and are not used.
  config.n_layers -= reader.get_count("nextn_predict_layers", config.n_layers - 1);
  if (reader.find_float("attention.temperature_scale").value_or(0.0) != 0.0) {
    throw Error(reader.full_key("attention.temperature_scale") +
                ": scaling of queries by their position is not supported");
  }
  config.mla = read_mla_config(reader);
  if (reader.get_count("expert_count", 1 << 16) > 0) {
    config.moe = read_moe_config(reader, {});
    guess_groups(reader, config.moe.routing);
  } else {
    config.moe.n_dense_layers = config.n_layers;
  }
  config.moe.n_dense_layers = std::min(config.moe.n_dense_layers, config.n_layers);
  if (config.moe.n_dense_layers > 0)
    config.ffn_dim = reader.get_int("feed_forward_length", 1 << 20);
  config.attention_scale =
      static_cast<float>(1.0 / std::sqrt(static_cast<double>(config.mla.q_head_dim())));
  config.rope =
      read_rope_config(reader, RopeStyle::kNorm, config.mla.rope_dim, config.context_length);
  scale_for_yarn(reader, config);
  return config;
}

std::unique_ptr<Model> load_deepseek2(const ModelConfig& config, const LoadOptions& options,
                                      WeightLoader& loader) {
  return std::make_unique<Deepseek2>(config, options, loader);
}

}  // namespace dsctl::engine
