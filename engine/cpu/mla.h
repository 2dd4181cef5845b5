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

/// One product for each head: y_h = W_h x_h or W_h^T x_h. Inputs lie x_step columns apart in a row
/// of x, outputs as many as they are wide.
struct HeadProductArgs {
  MutableRows y;  // (n_tokens, n_heads * outputs)
  Rows x;         // (n_tokens, >= (n_heads - 1) * x_step + inputs)
  int x_step = 0;
  MatrixStack matrices;  // one a head
  HeadProduct product = HeadProduct::kPlain;
  float* scratch = nullptr;  // (n_threads, matrices.first.n_cols)
};
void head_product(const HeadProductArgs& args, ThreadPool& pool);

/// As AttentionArgs, with latent rows as keys (whole) and values (their first latent_dim).
struct MlaAttentionArgs {
  MutableRows z;  // (n_tokens, n_heads * latent_dim): absorbed queries in, softmax(s) latent out
  Rows q;         // (n_tokens, >= shape.q_cols()), of which the rotated parts are read
  MlaShape shape;
  LatentPages pages;
  float scale = 1.0f;
  const int32_t* positions = nullptr;    // (n_tokens)
  const int32_t* block_table = nullptr;  // of the tokens' sequence
  float* scratch = nullptr;              // (n_threads, scratch_stride)
  int64_t scratch_stride = 0;            // >= the longest context + pages.n_cols
};
/// Tokens of one sequence.
void mla_attention_reference(const MlaAttentionArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine
