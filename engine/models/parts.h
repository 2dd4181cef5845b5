// Parts that the dense architectures share: how their attention and feed-forward weights are named
// and cut over the ranks, and where a step's activations live.
#pragma once

#include "engine/model_config.h"
#include "engine/models/models.h"
#include "engine/ops.h"
#include "engine/weights.h"

namespace dsctl::engine {

/// This rank's share of a dense model.
struct Partition {
  Range kv_heads;   // of all ranks' heads
  Range ffn;        // columns of the feed-forward network
  Range tokens;     // rows of the head
  HeadShape heads;  // of this rank
  /// Inputs of attn_output that this rank multiplies: its heads, widened to whole blocks.
  Range output_cols;
  int output_pad = 0;  // columns before the first head

  KvShape kv_shape() const { return {.n_kv_heads = heads.n_kv_heads, .head_dim = heads.head_dim}; }
};

/// Cuts along whole KV heads, whole blocks of ffn_down (where there are dense layers) and tokens.
/// Throws Error when there are fewer of them than ranks.
Partition make_partition(const ModelConfig& config, const WeightLoader& loader);

/// The largest block of the tensors blk.*.<suffix>: cutting at its multiples suits all layers.
int64_t largest_block(const ModelConfig& config, const WeightLoader& loader,
                      const std::string& suffix);
/// This rank's columns of a feed-forward network of `ffn_dim`, whole blocks of <suffix>.
Range split_ffn(const ModelConfig& config, const WeightLoader& loader, int64_t ffn_dim,
                const std::string& suffix);
/// Inputs `own` of the `n_cols` of attn_output, widened to whole blocks.
Range widen_output(const ModelConfig& config, const WeightLoader& loader, Range own,
                   int64_t n_cols);

/// A rank's buffers for one step.
struct StepBuffers {
  Buffer x;          // (rows, dim) the residual stream
  Buffer qkv;        // (rows, heads.qkv_cols())
  Buffer attention;  // (rows, output_cols), zero where another rank's heads are
};
StepBuffers make_buffers(const ModelConfig& config, const Partition& partition, Ops& ops);

/// attn_norm, attn_{q,k,v}.{weight,bias} or attn_qkv.{weight,bias}, attn_{q,k}_norm,
/// attn_output.{weight,bias}. Biases that the file does not have are null.
struct AttentionWeights {
  VectorPtr norm;         // (dim)
  MatrixPtr qkv;          // parts of this rank's heads
  VectorPtr qkv_bias;     // (heads.qkv_cols()) or null
  VectorPtr q_norm;       // (head_dim), null without config.qk_norm
  VectorPtr k_norm;       // (head_dim), likewise
  MatrixPtr output;       // (dim, output_cols)
  VectorPtr output_bias;  // (dim) or null
};
AttentionWeights load_attention(const ModelConfig& config, const Partition& partition,
                                int layer_idx, WeightLoader& loader);

/// ffn_norm, ffn_{gate,up,down}.weight; with config.fused_gate_up there is no ffn_gate.
struct FfnWeights {
  VectorPtr norm;     // (dim)
  MatrixPtr gate_up;  // two parts of (this rank's ffn, dim)
  MatrixPtr down;     // (dim, this rank's ffn)
};
FfnWeights load_ffn(const ModelConfig& config, Range ffn, int layer_idx, WeightLoader& loader);

/// token_embd, output_norm, output (or token_embd again when the head is tied).
struct OuterWeights {
  MatrixPtr embedding;
  VectorPtr norm;  // (dim)
  MatrixPtr head;  // (this rank's tokens, dim)
};
OuterWeights load_outer(const ModelConfig& config, Range tokens, WeightLoader& loader);

/// The rope of `config`, with the factors of rope_freqs or, for longrope, of rope_factors_long or
/// rope_factors_short.
RopeId load_rope(const RopeConfig& config, const LoadOptions& options, WeightLoader& loader);

}  // namespace dsctl::engine
