#include "engine/models/parts.h"

#include <algorithm>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

/// The largest block of the tensors blk.*.<suffix>: cutting at its multiples suits all layers.
int64_t largest_block(const ModelConfig& config, const WeightLoader& loader,
                      const std::string& suffix) {
  int64_t largest = 1;
  for (int i = 0; i < config.n_layers; ++i)
    largest = std::max(largest, loader.block_elems(block_name(i, suffix)));
  return largest;
}

void append(std::vector<float>& all, const std::vector<float>& part, Range range) {
  all.insert(all.end(), part.begin() + range.begin, part.begin() + range.end);
}

VectorPtr load_qkv_bias(const ModelConfig& config, const Partition& partition, int layer_idx,
                        WeightLoader& loader) {
  const std::string q = block_name(layer_idx, "attn_q.bias");
  const std::string k = block_name(layer_idx, "attn_k.bias");
  const std::string v = block_name(layer_idx, "attn_v.bias");
  if (!loader.has(q) && !loader.has(k) && !loader.has(v)) return nullptr;
  const int64_t q_cols = int64_t{config.n_heads} * config.head_dim;
  const int64_t kv_cols = int64_t{config.n_kv_heads} * config.head_dim;
  const Range kv = partition.kv_heads.times(config.head_dim);
  std::vector<float> bias;
  append(bias, loader.values(q, q_cols), kv.times(config.n_heads / config.n_kv_heads));
  append(bias, loader.values(k, kv_cols), kv);
  append(bias, loader.values(v, kv_cols), kv);
  return loader.ops().load_vector(bias);
}

}  // namespace

Partition make_partition(const ModelConfig& config, const WeightLoader& loader) {
  const Shard& shard = loader.shard();
  Partition partition;
  partition.kv_heads = shard.split(config.n_kv_heads, "key/value heads");
  partition.ffn =
      shard.split_blocks(config.ffn_dim, largest_block(config, loader, "ffn_down.weight"),
                         "blocks in a row of ffn_down");
  partition.tokens = shard.split(config.vocab_size, "tokens");

  const int group = config.n_heads / config.n_kv_heads;
  partition.heads.n_kv_heads = static_cast<int>(partition.kv_heads.size());
  partition.heads.n_heads = partition.heads.n_kv_heads * group;
  partition.heads.head_dim = config.head_dim;

  const Range own = partition.kv_heads.times(int64_t{group} * config.head_dim);
  partition.output_cols = widen(own, largest_block(config, loader, "attn_output.weight"));
  partition.output_cols.end =
      std::min(partition.output_cols.end, int64_t{config.n_heads} * config.head_dim);
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
  const int64_t q_cols = int64_t{config.n_heads} * config.head_dim;
  const int64_t kv_cols = int64_t{config.n_kv_heads} * config.head_dim;
  const Range kv = partition.kv_heads.times(config.head_dim);
  const Range q = kv.times(config.n_heads / config.n_kv_heads);
  AttentionWeights weights;
  weights.norm = loader.vector(name("attn_norm.weight"), config.dim);
  weights.qkv = loader.matrix({loader.column(name("attn_q.weight"), q_cols, config.dim, q),
                               loader.column(name("attn_k.weight"), kv_cols, config.dim, kv),
                               loader.column(name("attn_v.weight"), kv_cols, config.dim, kv)});
  weights.qkv_bias = load_qkv_bias(config, partition, layer_idx, loader);
  if (config.qk_norm) {
    weights.q_norm = loader.vector(name("attn_q_norm.weight"), config.head_dim);
    weights.k_norm = loader.vector(name("attn_k_norm.weight"), config.head_dim);
  }
  weights.output = loader.matrix(
      {loader.row(name("attn_output.weight"), config.dim, q_cols, partition.output_cols)});
  weights.output_bias = loader.find_vector(name("attn_output.bias"), config.dim);
  return weights;
}

FfnWeights load_ffn(const ModelConfig& config, const Partition& partition, int layer_idx,
                    WeightLoader& loader) {
  const auto name = [&](const char* suffix) { return block_name(layer_idx, suffix); };
  FfnWeights weights;
  weights.norm = loader.vector(name("ffn_norm.weight"), config.dim);
  weights.gate_up = loader.ops().load_gate_up(
      loader.column(name("ffn_gate.weight"), config.ffn_dim, config.dim, partition.ffn),
      loader.column(name("ffn_up.weight"), config.ffn_dim, config.dim, partition.ffn));
  weights.down = loader.matrix(
      {loader.row(name("ffn_down.weight"), config.dim, config.ffn_dim, partition.ffn)});
  return weights;
}

OuterWeights load_outer(const ModelConfig& config, const Partition& partition,
                        WeightLoader& loader) {
  const std::string table = "token_embd.weight";
  const std::string head = loader.has("output.weight") ? "output.weight" : table;
  OuterWeights weights;
  weights.embedding =
      loader.ops().load_embedding(loader.replicated(table, config.vocab_size, config.dim));
  weights.norm = loader.vector("output_norm.weight", config.dim);
  weights.head =
      loader.matrix({loader.column(head, config.vocab_size, config.dim, partition.tokens)});
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
