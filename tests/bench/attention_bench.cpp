// Attention of the fast path: GB/s of keys and values in decode against the measured read
// bandwidth, and billions of multiply-adds a second in prefill.
//
//   attention_bench [n_threads [n_heads n_kv_heads head_dim]]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/fast/fast_attention.h"

namespace dsctl::engine::fast {
namespace {

template <typename Body>
double best_seconds(int n_runs, Body&& body) {
  double best = 1e30;
  for (int i = 0; i < n_runs; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    body();
    best = std::min(
        best, std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return best;
}

struct Shape {
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
};

void run(const char* name, const AttentionIsa& isa, const Shape& shape, ThreadPool& pool) {
  constexpr int kBlockSize = 16;
  std::printf("%s, %d threads, %d heads, %d KV heads, head_dim %d, f32 pages\n", name,
              pool.n_threads(), shape.n_heads, shape.n_kv_heads, shape.head_dim);
  std::printf("context   1 token: us   GB/s   <= 1024 tokens: ms  GMAC/s\n");
  for (const int context : {128, 512, 2048, 8192}) {
    const int64_t n_values = int64_t{context} * shape.n_kv_heads * shape.head_dim;
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    const auto values = [&](int64_t n) {
      std::vector<float> result(static_cast<size_t>(n));
      for (float& value : result)
        value = normal(random);
      return result;
    };
    std::vector<float> k = values(n_values);
    std::vector<float> v = values(n_values);
    std::vector<int32_t> table(static_cast<size_t>(context / kBlockSize));
    for (size_t i = 0; i < table.size(); ++i)
      table[i] = static_cast<int32_t>(i);
    const int q_cols = shape.n_heads * shape.head_dim;
    const int64_t stride = context + kAttentionScratch;
    std::vector<float> scratch(static_cast<size_t>(pool.n_threads() * stride));
    const auto time = [&](int n_tokens, int n_runs) {
      const std::vector<float> q = values(int64_t{n_tokens} * q_cols);
      std::vector<float> out(q.size());
      std::vector<int32_t> positions;
      for (int i = 0; i < n_tokens; ++i)
        positions.push_back(context - n_tokens + i);
      const int32_t starts[] = {0, n_tokens};
      const AttentionArgs args{.out = {out.data(), q_cols, n_tokens, q_cols},
                               .q = {q.data(), q_cols, n_tokens, q_cols},
                               .kv = {.k = reinterpret_cast<std::byte*>(k.data()),
                                      .v = reinterpret_cast<std::byte*>(v.data()),
                                      .block_size = kBlockSize,
                                      .n_kv_heads = shape.n_kv_heads,
                                      .head_dim = shape.head_dim},
                               .n_heads = shape.n_heads,
                               .scale = 0.1f,
                               .positions = positions.data(),
                               .query_starts = starts,
                               .block_tables = table.data(),
                               .n_seqs = 1,
                               .max_blocks_per_seq = static_cast<int>(table.size()),
                               .scratch = scratch.data(),
                               .scratch_stride = stride};
      return best_seconds(n_runs, [&] { attention(isa, args, pool); });
    };
    const double one = time(1, 20);
    const int n_prompt = std::min(context, 1024);  // the last so many of the context
    const double many = time(n_prompt, 2);
    const double macs = 2.0 * n_prompt * (context - n_prompt / 2.0) * q_cols;
    std::printf("%7d  %12.1f  %5.1f  %18.2f  %6.1f\n", context, one * 1e6,
                static_cast<double>(n_values) * 8 / one / 1e9, many * 1e3, macs / many / 1e9);
  }
}

}  // namespace
}  // namespace dsctl::engine::fast

int main(int argc, char** argv) {
  using namespace dsctl::engine;  // NOLINT: a program's main
  ThreadPool pool(argc > 1 ? std::atoi(argv[1]) : cpu_features().n_physical_cores);
  const fast::Shape shape =
      argc > 4 ? fast::Shape{std::atoi(argv[2]), std::atoi(argv[3]), std::atoi(argv[4])}
               : fast::Shape{32, 8, 128};
  if (cpu_features().avx512_vnni) fast::run("AVX-512", fast::attention_avx512(), shape, pool);
  if (cpu_features().avx2) fast::run("AVX2", fast::attention_avx2(), shape, pool);
  return 0;
}
