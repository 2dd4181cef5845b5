#include "engine/cpu/attention.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>

#include "engine/cpu/linear.h"
#include "gguf/quants/half.h"

namespace dsctl::engine {
namespace {

/// The head at `element` as f32: where it lies, or converted into `buffer` (head_dim).
const float* load_head(const KvPages& kv, const std::byte* pages, int64_t element, float* buffer) {
  if (kv.dtype == gguf::DType::F32) return reinterpret_cast<const float*>(pages) + element;
  for (int i = 0; i < kv.head_dim; ++i) {
    uint16_t half = 0;
    std::memcpy(&half, pages + (element + i) * 2, 2);
    buffer[i] = gguf::half_to_float(half);
  }
  return buffer;
}

/// One head of one token. `scores` has room for the context, `buffer` for head_dim.
void attend(const AttentionArgs& args, int seq, int64_t token, int head, float* scores,
            float* buffer) {
  const KvPages& kv = args.kv;
  const int head_dim = kv.head_dim;
  const int kv_head = head / (args.n_heads / kv.n_kv_heads);
  const float* q = args.q.row(token) + static_cast<int64_t>(head) * head_dim;
  float* out = args.out.row(token) + static_cast<int64_t>(head) * head_dim;
  const int32_t* table = args.block_tables + static_cast<int64_t>(seq) * args.max_blocks_per_seq;
  const int last = args.positions[token];
  const int first = args.window > 0 ? std::max(0, last - args.window + 1) : 0;
  const auto element_of = [&](int position) {
    const int64_t block = table[position / kv.block_size];
    return kv.element(block * kv.block_size + position % kv.block_size, kv_head);
  };

  float max_score = -INFINITY;
  for (int p = first; p <= last; ++p) {
    float score = dot(q, load_head(kv, kv.k, element_of(p), buffer), head_dim) * args.scale;
    if (args.softcap > 0.0f) score = args.softcap * std::tanh(score / args.softcap);
    scores[p - first] = score;
    max_score = std::max(max_score, score);
  }
  std::fill_n(out, head_dim, 0.0f);
  float sum = 0.0f;
  for (int p = first; p <= last; ++p) {
    const float weight = std::exp(scores[p - first] - max_score);
    const float* v = load_head(kv, kv.v, element_of(p), buffer);
    sum += weight;
    for (int i = 0; i < head_dim; ++i)
      out[i] += weight * v[i];
  }
  for (int i = 0; i < head_dim; ++i)
    out[i] /= sum;
}

}  // namespace

void attention_reference(const AttentionArgs& args, ThreadPool& pool) {
  assert(args.kv.head_dim <= kAttentionScratch);
  for (int seq = 0; seq < args.n_seqs; ++seq) {
    const int64_t first_token = args.query_starts[seq];
    const int64_t n_tokens = args.query_starts[seq + 1] - first_token;
    pool.parallel_for(n_tokens * args.n_heads, 1, [&](int64_t begin, int64_t end, int thread_idx) {
      float* buffer = args.scratch + thread_idx * args.scratch_stride;
      float* scores = buffer + kAttentionScratch;
      for (int64_t i = begin; i < end; ++i) {
        const int head = static_cast<int>(i % args.n_heads);
        attend(args, seq, first_token + i / args.n_heads, head, scores, buffer);
      }
    });
  }
}

}  // namespace dsctl::engine
