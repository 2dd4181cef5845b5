// Multi-head latent attention on the CPU, in the absorbed form: all heads of a token share one row
// of the cache, and a head's up projections are applied to its query and its result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/thread_pool.h"
#include "engine/ops.h"
#include "engine/tensor.h"
#include "gguf/dtype.h"

namespace dsctl::engine {

/// One layer's latent rows. Slot s is row s: blocks follow each other.
struct LatentPages {
  gguf::DType dtype = gguf::DType::F32;  // F32 or F16
  std::byte* rows = nullptr;             // (n_blocks, block_size, n_cols)
  int block_size = 0;
  int n_cols = 0;  // latent, then rotated key
};

/// Per token: q's rope parts rotated in place, latent normalised and key rotated into its slot.
struct MlaStoreArgs {
  MutableRows q;   // (n_tokens, shape.q_cols())
  MutableRows kv;  // (n_tokens, shape.latent_cols()); scratch afterwards
  MlaShape shape;
  const float* norm = nullptr;  // (latent_dim)
  float eps = 0.0f;
  RopeStyle style = RopeStyle::kNorm;
  const float* cos_sin = nullptr;  // (n_tokens, rope_dim / 2, 2)
  LatentPages pages;
  const int32_t* slot_mapping = nullptr;  // (n_tokens)
};
void mla_store_reference(const MlaStoreArgs& args, ThreadPool& pool);

/// As AttentionArgs, with latent rows as keys (whole) and values (their first latent_dim), for
/// tokens of one sequence.
struct MlaAttentionArgs {
  float* z =
      nullptr;  // (n_heads, n_tokens, latent_dim): absorbed queries in, softmax(s) latent out
  Rows q;       // (n_tokens, >= shape.q_cols()), of which the rotated parts are read
  MlaShape shape;
  LatentPages pages;
  float scale = 1.0f;
  const int32_t* positions = nullptr;    // (n_tokens)
  const int32_t* block_table = nullptr;  // of the tokens' sequence
  float* scratch = nullptr;              // (n_threads, scratch_stride)
  int64_t scratch_stride = 0;            // mla_scratch_size

  float* z_row(int64_t token, int head) const {
    return z + (int64_t{head} * q.n_rows + token) * shape.latent_dim;
  }
  const float* q_rope(int64_t token, int head) const {
    return q.row(token) + int64_t{head} * (shape.nope_dim + shape.rope_dim) + shape.nope_dim;
  }
};

/// Floats of scratch for each thread, enough for every KernelSet.
constexpr int64_t mla_scratch_size(int latent_cols, int max_context) {
  return max_context + int64_t{64} * latent_cols + 4096;
}

/// For each token and head: all scores, softmax, weighted sum, keys in ascending position, in f32.
void mla_attention_reference(const MlaAttentionArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine
