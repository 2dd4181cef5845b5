#include "engine/cpu/mla.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "engine/cpu/linear.h"
#include "engine/cpu/norm.h"
#include "engine/cpu/rope.h"
#include "gguf/quants/all.h"
#include "gguf/quants/half.h"

namespace dsctl::engine {
namespace {

void store_row(const LatentPages& pages, int64_t slot, const float* values) {
  std::byte* row = pages.rows + gguf::row_size_bytes(pages.dtype, slot * pages.n_cols);
  if (pages.dtype == gguf::DType::F32) {
    std::memcpy(row, values, static_cast<size_t>(pages.n_cols) * 4);
    return;
  }
  assert(pages.dtype == gguf::DType::F16);
  for (int i = 0; i < pages.n_cols; ++i) {
    const uint16_t half = gguf::float_to_half(values[i]);
    std::memcpy(row + i * 2, &half, 2);
  }
}

/// The row as f32: where it lies, or converted into `buffer` (n_cols).
const float* load_row(const LatentPages& pages, int64_t slot, float* buffer) {
  const std::byte* row = pages.rows + gguf::row_size_bytes(pages.dtype, slot * pages.n_cols);
  if (pages.dtype == gguf::DType::F32) return reinterpret_cast<const float*>(row);
  for (int i = 0; i < pages.n_cols; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, row + i * 2, 2);
    buffer[i] = gguf::half_to_float(half);
  }
  return buffer;
}

/// One head of one token. `scores` has room for the context, `buffer` for a row of the cache.
void attend(const MlaAttentionArgs& args, int64_t token, int head, float* scores, float* buffer) {
  const MlaShape& shape = args.shape;
  const LatentPages& pages = args.pages;
  const int latent_dim = shape.latent_dim;
  float* z = args.z_row(token, head);
  const float* q_rope = args.q_rope(token, head);
  const int last = args.positions[token];
  const auto row_of = [&](int position) {
    const int64_t block = args.block_table[position / pages.block_size];
    return load_row(pages, block * pages.block_size + position % pages.block_size, buffer);
  };

  float max_score = -INFINITY;
  for (int p = 0; p <= last; ++p) {
    const float* row = row_of(p);
    scores[p] =
        (dot(z, row, latent_dim) + dot(q_rope, row + latent_dim, shape.rope_dim)) * args.scale;
    max_score = std::max(max_score, scores[p]);
  }
  std::fill_n(z, latent_dim, 0.0f);  // the query has been read
  float sum = 0.0f;
  for (int p = 0; p <= last; ++p) {
    const float weight = std::exp(scores[p] - max_score);
    const float* row = row_of(p);
    sum += weight;
    for (int i = 0; i < latent_dim; ++i)
      z[i] += weight * row[i];
  }
  for (int i = 0; i < latent_dim; ++i)
    z[i] /= sum;
}

}  // namespace

void mla_store_reference(const MlaStoreArgs& args, ThreadPool& pool) {
  const MlaShape& shape = args.shape;
  const int q_head_dim = shape.nope_dim + shape.rope_dim;
  pool.parallel_for(args.q.n_rows, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cos_sin = args.cos_sin + t * shape.rope_dim;
      for (int h = 0; h < shape.n_heads; ++h) {
        float* head = args.q.row(t) + int64_t{h} * q_head_dim;
        rotate(head + shape.nope_dim, cos_sin, args.style, shape.rope_dim);
      }
      float* kv = args.kv.row(t);
      rmsnorm(kv, kv, args.norm, shape.latent_dim, args.eps);
      rotate(kv + shape.latent_dim, cos_sin, args.style, shape.rope_dim);
      store_row(args.pages, args.slot_mapping[t], kv);
    }
  });
}

void mla_attention_reference(const MlaAttentionArgs& args, ThreadPool& pool) {
  const int n_heads = args.shape.n_heads;
  const int64_t n_items = int64_t{args.q.n_rows} * n_heads;
  pool.parallel_for(n_items, 1, [&](int64_t begin, int64_t end, int thread_idx) {
    float* buffer = args.scratch + thread_idx * args.scratch_stride;
    float* scores = buffer + args.pages.n_cols;
    for (int64_t i = begin; i < end; ++i)
      attend(args, i / n_heads, static_cast<int>(i % n_heads), scores, buffer);
  });
}

}  // namespace dsctl::engine
