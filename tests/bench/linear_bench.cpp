// Matrix products of the fast path: GB/s of weights at one token against the measured read
// bandwidth, and billions of multiply-adds a second at 512 tokens against the measured peak.
//
//   linear_bench [n_threads] [n_rows n_cols]

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/fast/fast_linear.h"
#include "engine/memory_bandwidth.h"
#include "gguf/quants/encode.h"

namespace dsctl::engine::fast {
namespace {

using gguf::DType;

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

void run(const LinearIsa& isa, const VectorIsa& vector_isa, ThreadPool& pool, int64_t n_rows,
         int64_t n_cols, double bandwidth_gb_s) {
  std::printf("%s, %d threads, %ld x %ld, read bandwidth %.1f GB/s\n", isa.name, pool.n_threads(),
              static_cast<long>(n_rows), static_cast<long>(n_cols), bandwidth_gb_s);
  std::printf(
      "type      MiB   1 token: us   GB/s   %%peak  8 tokens: us  512 tokens: ms  GMAC/s\n");
  for (const DType dtype : {DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q8_0, DType::Q4_K,
                            DType::Q5_K, DType::Q6_K, DType::F16, DType::BF16, DType::F32}) {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<float> row(static_cast<size_t>(n_cols));
    for (float& value : row)
      value = normal(random);
    const int64_t row_bytes = gguf::row_size_bytes(dtype, n_cols);
    std::vector<std::byte> bytes(static_cast<size_t>(row_bytes * n_rows));
    gguf::quantize_row(dtype, row.data(), bytes.data(), n_cols);
    for (int64_t r = 1; r < n_rows; ++r) {
      std::memcpy(bytes.data() + r * row_bytes, bytes.data(), static_cast<size_t>(row_bytes));
    }
    WeightArena arena;
    const auto weight = make_weight(isa, {dtype, n_rows, n_cols, bytes.data(), row_bytes}, arena);
    constexpr int kTokens = 512;
    std::vector<float> x(static_cast<size_t>(kTokens * n_cols));
    for (float& value : x)
      value = normal(random);
    std::vector<float> y(static_cast<size_t>(kTokens * n_rows));
    const auto time = [&](int n_tokens, int n_runs) {
      auto input = make_input(isa, vector_isa, n_tokens, n_cols, pool.n_threads());
      const LinearOutput output{weight.get(), nullptr, y.data(), n_rows};
      return best_seconds(n_runs, [&] {
        input->assign({x.data(), n_cols, n_tokens, static_cast<int>(n_cols)}, pool);
        linear(isa, *input, {&output, 1}, pool);
      });
    };
    const double one = time(1, 30);
    const double eight = time(8, 15);
    const double many = time(kTokens, 3);
    const double gb_s = static_cast<double>(weight->owned_bytes()) / one / 1e9;
    std::printf("%-6s %6.1f  %12.1f  %5.1f  %5.0f%%  %12.1f  %14.2f  %6.0f\n",
                gguf::dtype_info(dtype).name.data(),
                static_cast<double>(weight->owned_bytes()) / 1048576.0, one * 1e6, gb_s,
                100.0 * gb_s / bandwidth_gb_s, eight * 1e6, many * 1e3,
                static_cast<double>(n_rows * n_cols) * kTokens / many / 1e9);
  }
}

}  // namespace
}  // namespace dsctl::engine::fast

int main(int argc, char** argv) {
  using namespace dsctl::engine;  // NOLINT: a program's main
  const int n_threads = argc > 1 ? std::atoi(argv[1]) : cpu_features().n_physical_cores;
  const int64_t n_rows = argc > 3 ? std::atoll(argv[2]) : 24576;
  const int64_t n_cols = argc > 3 ? std::atoll(argv[3]) : 2048;
  ThreadPool pool(n_threads);
  const double bandwidth = measure_memory_bandwidth(n_threads).read_gb_s;
  if (cpu_features().avx512_vnni) {
    fast::run(fast::linear_avx512(), fast::vector_avx512(), pool, n_rows, n_cols, bandwidth);
  }
  if (cpu_features().avx2)
    fast::run(fast::linear_avx2(), fast::vector_avx2(), pool, n_rows, n_cols, bandwidth);
  return 0;
}
