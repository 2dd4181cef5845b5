// Attention on the CPU: paged, causal, grouped queries, optional sliding window and soft cap.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/thread_pool.h"
#include "engine/tensor.h"
#include "gguf/dtype.h"

namespace dsctl::engine {

/// One layer's keys and values. A slot s lies in block s / block_size at s % block_size. How the
/// values of one block and KV head are ordered is the business of the KernelSet that writes and
/// reads them: this is the reference's order; the fast one turns keys (fast/fast_attention.h).
struct KvPages {
  gguf::DType dtype = gguf::DType::F32;  // F32 or F16
  std::byte* k = nullptr;                // (n_blocks, n_kv_heads, block_size, head_dim)
  std::byte* v = nullptr;                // (n_blocks, n_kv_heads, block_size, head_dim)
  int block_size = 0;
  int n_kv_heads = 0;
  int head_dim = 0;

  /// First element of a key (or value), counted in elements.
  int64_t element(int64_t slot, int kv_head) const {
    const int64_t block = slot / block_size;
    return ((block * n_kv_heads + kv_head) * block_size + slot % block_size) * head_dim;
  }
};

/// Token t of sequence s attends to the positions p of its own sequence with p <= positions[t] and,
/// when window > 0, positions[t] - p < window. Position p lies in slot
/// block_tables[s, p / block_size] * block_size + p % block_size.
struct AttentionArgs {
  MutableRows out;  // (n_tokens, n_heads * head_dim)
  Rows q;           // (n_tokens, n_heads * head_dim), rope applied
  KvPages kv;
  int n_heads = 0;  // a multiple of kv.n_kv_heads; head h reads KV head h / (n_heads / n_kv_heads)
  float scale = 1.0f;
  float softcap = 0.0f;                   // c: scores become c * tanh(score / c); 0: off
  int window = 0;                         // 0: the whole context
  const int32_t* positions = nullptr;     // (n_tokens)
  const int32_t* query_starts = nullptr;  // (n_seqs + 1)
  const int32_t* block_tables = nullptr;  // (n_seqs, max_blocks_per_seq)
  int n_seqs = 0;
  int max_blocks_per_seq = 0;
  float* scratch = nullptr;    // (n_threads, scratch_stride)
  int64_t scratch_stride = 0;  // >= the longest context + kAttentionScratch
};

/// Floats of scratch that a kernel has for each thread besides one for each key.
inline constexpr int64_t kAttentionScratch = 8192;

/// For each token and head: all scores, softmax, weighted sum of the values, keys in ascending
/// position, all in f32.
void attention_reference(const AttentionArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine
