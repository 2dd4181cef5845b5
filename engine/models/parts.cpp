#include "engine/models/parts.h"

#include <algorithm>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

void append(std::vector<float>& all, const std::vector<float>& part, Range range) {
  all.insert(all.end(), part.begin() + range.begin, part.begin() + range.end);
}

/// Rows of the queries, keys and values of this rank's heads, in a fused attn_qkv or, where fused
/// is false, in the tensor of each.
struct QkvRows {
  QkvRows(const ModelConfig& config, const Partition& partition)
      : q_cols(int64_t{config.n_heads} * config.head_dim),
        kv_cols(int64_t{config.n_kv_heads} * config.head_dim),
        kv(partition.kv_heads.times(config.head_dim)),
        q(kv.times(config.n_heads / config.n_kv_heads)) {}

  int64_t fused_cols() const { return q_cols + 2 * kv_cols; }
  Range fused_k() const { return {q_cols + kv.begin, q_cols + kv.end}; }
  Range fused_v() const { return {q_cols + kv_cols + kv.begin, q_cols + kv_cols + kv.end}; }

  int64_t q_cols;
  int64_t kv_cols;
  Range kv;
  Range q;
};

MatrixPtr load_qkv(const ModelConfig& config, const QkvRows& rows, int layer_idx,
                   WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  const std::string fused = name("attn_qkv.weight");
  if (loader.has(fused)) {
    const auto part = [&](Range range) {
      return loader.column(fused, rows.fused_cols(), config.dim, range);
    };
    return loader.matrix({part(rows.q), part(rows.fused_k()), part(rows.fused_v())});
  }
  return loader.matrix({loader.column(name("attn_q.weight"), rows.q_cols, config.dim, rows.q),
                        loader.column(name("attn_k.weight"), rows.kv_cols, config.dim, rows.kv),
                        loader.column(name("attn_v.weight"), rows.kv_cols, config.dim, rows.kv)});
}

VectorPtr load_qkv_bias(const QkvRows& rows, int layer_idx, WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  std::vector<float> bias;
  if (loader.has(name("attn_qkv.bias"))) {
    const auto all = loader.values(name("attn_qkv.bias"), rows.fused_cols());
    append(bias, all, rows.q);
    append(bias, all, rows.fused_k());
    append(bias, all, rows.fused_v());
    return loader.ops().load_vector(bias);
  }
  const std::string q = name("attn_q.bias");
  const std::string k = name("attn_k.bias");
  const std::string v = name("attn_v.bias");
  if (!loader.has(q) && !loader.has(k) && !loader.has(v)) return nullptr;
  append(bias, loader.values(q, rows.q_cols), rows.q);
  append(bias, loader.values(k, rows.kv_cols), rows.kv);
  append(bias, loader.values(v, rows.kv_cols), rows.kv);
  return loader.ops().load_vector(bias);
}

}  // namespace

int64_t largest_block(const ModelConfig& config, const WeightLoader& loader,
                      const std::string& suffix) {
  int64_t largest = 1;
  for (int i = 0; i < config.n_layers; ++i)
    largest = std::max(largest, loader.block_elems(block_name(i, suffix)));
  return largest;
}

Range split_ffn(const ModelConfig& config, const WeightLoader& loader, int64_t ffn_dim,
                const std::string& suffix) {
  return loader.shard().split_blocks(ffn_dim, largest_block(config, loader, suffix + ".weight"),
                                     "blocks in a row of " + suffix);
}

Range widen_output(const ModelConfig& config, const WeightLoader& loader, Range own,
                   int64_t n_cols) {
  Range cols = widen(own, largest_block(config, loader, "attn_output.weight"));
  cols.end = std::min(cols.end, n_cols);
  return cols;
}

Partition make_partition(const ModelConfig& config, const WeightLoader& loader) {
  const Shard& shard = loader.shard();
  Partition partition;
  partition.kv_heads = shard.split(config.n_kv_heads, "key/value heads");
  if (config.ffn_dim > 0) partition.ffn = split_ffn(config, loader, config.ffn_dim, "ffn_down");
  partition.tokens = shard.split(config.vocab_size, "tokens");

  const int group = config.n_heads / config.n_kv_heads;
  partition.heads.n_kv_heads = static_cast<int>(partition.kv_heads.size());
  partition.heads.n_heads = partition.heads.n_kv_heads * group;
  partition.heads.head_dim = config.head_dim;

  const Range own = partition.kv_heads.times(int64_t{group} * config.head_dim);
  partition.output_cols =
      widen_output(config, loader, own, int64_t{config.n_heads} * config.head_dim);
  partition.output_pad = static_cast<int>(own.begin - partition.output_cols.begin);
  return partition;
}

StepBuffers make_buffers(const ModelConfig& config, const Partition& partition, Ops& ops) {
  return {ops.new_buffer(config.dim), ops.new_buffer(partition.heads.qkv_cols()),
          ops.new_buffer(static_cast<int>(partition.output_cols.size()))};
}

AttentionWeights load_attention(const ModelConfig& config, const Partition& partition,
                                int layer_idx, WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  const QkvRows qkv_rows(config, partition);
  AttentionWeights weights;
  weights.norm = loader.vector(name("attn_norm.weight"), config.dim);
  weights.qkv = load_qkv(config, qkv_rows, layer_idx, loader);
  weights.qkv_bias = load_qkv_bias(qkv_rows, layer_idx, loader);
  if (config.qk_norm) {
    weights.q_norm = loader.vector(name("attn_q_norm.weight"), config.head_dim);
    weights.k_norm = loader.vector(name("attn_k_norm.weight"), config.head_dim);
  }
  weights.output = loader.matrix(
      {loader.row(name("attn_output.weight"), config.dim, qkv_rows.q_cols, partition.output_cols)});
  weights.output_bias = loader.find_vector(name("attn_output.bias"), config.dim);
  return weights;
}

FfnWeights load_ffn(const ModelConfig& config, Range ffn, int layer_idx, WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  FfnWeights weights;
  weights.norm = loader.vector(name("ffn_norm.weight"), config.dim);
  const int64_t ffn_dim = config.ffn_dim;
  if (!config.fused_gate_up) {
    weights.gate_up =
        loader.ops().load_gate_up(loader.column(name("ffn_gate.weight"), ffn_dim, config.dim, ffn),
                                  loader.column(name("ffn_up.weight"), ffn_dim, config.dim, ffn));
  } else {
    const auto half = [&](int64_t first_row) {
      return loader.column(name("ffn_up.weight"), 2 * ffn_dim, config.dim,
                           {first_row + ffn.begin, first_row + ffn.end});
    };
    weights.gate_up = loader.ops().load_gate_up(half(0), half(ffn_dim));
  }
  weights.down = loader.matrix({loader.row(name("ffn_down.weight"), config.dim, ffn_dim, ffn)});
  return weights;
}

OuterWeights load_outer(const ModelConfig& config, Range tokens, WeightLoader& loader) {
  const std::string table = "token_embd.weight";
  const std::string head = loader.has("output.weight") ? "output.weight" : table;
  OuterWeights weights;
  const MatrixView embedding = loader.replicated(table, config.vocab_size, config.dim);
  if (embedding.n_loras > 0) throw Error(table + ": an adapter for it is not supported");
  weights.embedding = loader.ops().load_embedding(embedding);
  weights.norm = loader.vector("output_norm.weight", config.dim);
  weights.head = loader.matrix({loader.column(head, config.vocab_size, config.dim, tokens)});
  return weights;
}

RopeId load_rope(const RopeConfig& config, const LoadOptions& options, WeightLoader& loader) {
  RopeParams params = config.params;
  std::string name = "rope_freqs.weight";
  if (config.scaling == RopeScaling::kLongRope) {
    name = options.max_model_len > params.n_original_context ? "rope_factors_long.weight"
                                                             : "rope_factors_short.weight";
    if (!loader.has(name)) throw Error(name + ": tensor missing, longrope scaling needs it");
  }
  std::vector<float> factors;
  if (loader.has(name)) {
    factors = loader.values(name, params.n_dims / 2);
    for (const float factor : factors) {
      if (!(factor > 0.0f)) {
        throw Error(name + ": factor " + std::to_string(factor) + ", expected positive numbers");
      }
    }
    params.freq_factors = factors;
  }
  return loader.ops().new_rope(make_rope(params));
}

}  // namespace dsctl::engine
