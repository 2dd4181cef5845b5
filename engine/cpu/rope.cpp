#include "engine/cpu/rope.h"

#include <cassert>
#include <cmath>
#include <cstring>

#include "engine/cpu/norm.h"
#include "gguf/quants/half.h"

namespace dsctl::engine {
namespace {

/// Writes the heads of one token into its slot.
void store(const KvPages& kv, std::byte* pages, int64_t slot, const float* heads) {
  for (int h = 0; h < kv.n_kv_heads; ++h) {
    const int64_t element = kv.element(slot, h);
    const float* head = heads + static_cast<int64_t>(h) * kv.head_dim;
    if (kv.dtype == gguf::DType::F32) {
      std::memcpy(pages + element * 4, head, static_cast<size_t>(kv.head_dim) * 4);
      continue;
    }
    assert(kv.dtype == gguf::DType::F16);
    for (int i = 0; i < kv.head_dim; ++i) {
      const uint16_t half = gguf::float_to_half(head[i]);
      std::memcpy(pages + (element + i) * 2, &half, 2);
    }
  }
}

}  // namespace

void rope_table(const Rope& rope, const int32_t* positions, int n_tokens, float* out) {
  for (int t = 0; t < n_tokens; ++t) {
    for (const double frequency : rope.frequencies) {
      const double angle = positions[t] * frequency;
      *out++ = static_cast<float>(std::cos(angle) * rope.magnitude);
      *out++ = static_cast<float>(std::sin(angle) * rope.magnitude);
    }
  }
}

void rotate(float* head, const float* cos_sin, RopeStyle style, int n_dims) {
  const int n_pairs = n_dims / 2;
  for (int i = 0; i < n_pairs; ++i) {
    float& a = style == RopeStyle::kNorm ? head[2 * i] : head[i];
    float& b = style == RopeStyle::kNorm ? head[2 * i + 1] : head[i + n_pairs];
    const float cosine = cos_sin[2 * i];
    const float sine = cos_sin[2 * i + 1];
    const float rotated_a = a * cosine - b * sine;
    b = a * sine + b * cosine;
    a = rotated_a;
  }
}

void rope_store_reference(const RopeStoreArgs& args, ThreadPool& pool) {
  const int head_dim = args.kv.head_dim;
  const auto prepare = [&](float* heads, int n_heads, const float* norm, const float* cos_sin) {
    for (int h = 0; h < n_heads; ++h) {
      float* head = heads + static_cast<int64_t>(h) * head_dim;
      if (norm != nullptr) rmsnorm(head, head, norm, head_dim, args.norm_eps);
      rotate(head, cos_sin, args.style, args.n_dims);
    }
  };
  pool.parallel_for(args.q.n_rows, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cos_sin = args.cos_sin + t * args.n_dims;
      prepare(args.q.row(t), args.n_heads, args.q_norm, cos_sin);
      prepare(args.k.row(t), args.kv.n_kv_heads, args.k_norm, cos_sin);
      store(args.kv, args.kv.k, args.slot_mapping[t], args.k.row(t));
      store(args.kv, args.kv.v, args.slot_mapping[t], args.v.row(t));
    }
  });
}

}  // namespace dsctl::engine
