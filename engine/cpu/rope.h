// Rotary position embedding and the write of keys and values into the cache, on the CPU.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/cpu/attention.h"
#include "engine/cpu/thread_pool.h"
#include "engine/rope.h"

namespace dsctl::engine {

/// Cosines and sines of `rope` for one step: out (n_tokens, rope.n_dims / 2, 2) as {cos, sin}, each
/// times the rope's magnitude; the angle is computed in f64.
void rope_table(const Rope& rope, const int32_t* positions, int n_tokens, float* out);

/// Rotates one head in place. `cos_sin` (n_dims / 2, 2); elements from n_dims on stay.
void rotate(float* head, const float* cos_sin, RopeStyle style, int n_dims);

/// Per token: optional per-head rmsnorm of q and k, rope on both, k and v to their cache slots.
struct RopeStoreArgs {
  MutableRows q;                  // (n_tokens, n_heads * head_dim), in place
  MutableRows k;                  // (n_tokens, n_kv_heads * head_dim), in place
  Rows v;                         // (n_tokens, n_kv_heads * head_dim)
  const float* q_norm = nullptr;  // (head_dim) or null
  const float* k_norm = nullptr;  // (head_dim) or null
  float norm_eps = 0.0f;
  RopeStyle style = RopeStyle::kNeox;
  int n_dims = 0;                  // rotated elements of a head
  const float* cos_sin = nullptr;  // (n_tokens, n_dims / 2, 2)
  KvPages kv;
  int n_heads = 0;
  const int32_t* slot_mapping = nullptr;  // (n_tokens)
};
void rope_store_reference(const RopeStoreArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine
