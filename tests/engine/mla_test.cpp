// Latent attention's loops against the expanded form of the paper, in f64.
#include "engine/cpu/mla.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "engine/cpu/kernels.h"
#include "engine/cpu/rope.h"
#include "gguf/quants/all.h"
#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

using gguf::DType;

std::vector<float> normal_values(size_t n, uint64_t seed, float spread = 1.0f) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, spread);
  std::vector<float> values(n);
  for (float& value : values)
    value = normal(random);
  return values;
}

double nmse(const std::vector<float>& actual, const std::vector<double>& expected) {
  REQUIRE(actual.size() == expected.size());
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return error / norm;
}

/// Seven tokens at the end of a context of 700 (several chunks of keys), in blocks of 16 that are
/// out of order.
struct MlaCase {
  static constexpr MlaShape kShape{
      .n_heads = 3, .nope_dim = 8, .rope_dim = 6, .latent_dim = 48, .value_dim = 10};
  static constexpr int kLatent = 48;
  static constexpr int kCols = 54;
  static constexpr int kQHead = 14;
  static constexpr int kContext = 700;
  static constexpr int kTokens = 7;
  static constexpr int kBlockSize = 16;
  static constexpr float kScale = 0.3f;

  static constexpr int kBlocks = 47;
  std::vector<int32_t> table = scattered_blocks();
  std::vector<float> w_k = normal_values(size_t{3} * 8 * kLatent, 1, 0.3f);  // (head, nope, latent)
  std::vector<float> w_v =
      normal_values(size_t{3} * 10 * kLatent, 2, 0.3f);  // (head, value, latent)
  std::vector<float> q = normal_values(size_t{kTokens} * 3 * kQHead, 3);
  std::vector<float> kv = normal_values(size_t{kContext} * kCols, 4);
  std::vector<float> norm = normal_values(kLatent, 5);
  std::vector<std::byte> pages;
  DType dtype;

  static std::vector<int32_t> scattered_blocks() {
    std::vector<int32_t> blocks;
    for (int i = 0; i < kBlocks; ++i)
      blocks.push_back((i * 17 + 5) % kBlocks);
    return blocks;
  }

  explicit MlaCase(DType type)
      : pages(static_cast<size_t>(gguf::row_size_bytes(type, kBlocks * kBlockSize * kCols))),
        dtype(type) {}

  LatentPages latent_pages() { return {dtype, pages.data(), kBlockSize, kCols}; }

  std::vector<float> table_of(int first, int n) const {
    std::vector<int32_t> positions;
    for (int i = 0; i < n; ++i)
      positions.push_back(first + i);
    std::vector<float> cos_sin(static_cast<size_t>(n) * 6);
    const Rope rope = make_rope({.style = RopeStyle::kNorm, .n_dims = 6});
    rope_table(rope, positions.data(), n, cos_sin.data());
    return cos_sin;
  }

  /// Stores the whole context; the queries of its last tokens are rotated.
  void store(ThreadPool& pool) {
    std::vector<float> all_q(size_t{kContext} * 3 * kQHead);
    const size_t first_q = all_q.size() - q.size();
    std::copy(q.begin(), q.end(), all_q.begin() + static_cast<ptrdiff_t>(first_q));
    std::vector<int32_t> slots;
    for (int p = 0; p < kContext; ++p)
      slots.push_back(table[static_cast<size_t>(p / kBlockSize)] * kBlockSize + p % kBlockSize);
    const auto cos_sin = table_of(0, kContext);
    std::vector<float> scratch = kv;
    mla_store_reference({.q = {all_q.data(), 3 * kQHead, kContext, 3 * kQHead},
                         .kv = {scratch.data(), kCols, kContext, kCols},
                         .shape = kShape,
                         .norm = norm.data(),
                         .eps = 1e-6f,
                         .cos_sin = cos_sin.data(),
                         .pages = latent_pages(),
                         .slot_mapping = slots.data()},
                        pool);
    std::copy(all_q.begin() + static_cast<ptrdiff_t>(first_q), all_q.end(), q.begin());
  }

  /// Latent after its norm, then the rotated key, of one position.
  std::vector<double> row(int position) const {
    const float* x = kv.data() + static_cast<ptrdiff_t>(position) * kCols;
    double mean = 0.0;
    for (int i = 0; i < kLatent; ++i)
      mean += double{x[i]} * x[i] / kLatent;
    std::vector<double> result;
    for (size_t i = 0; i < kLatent; ++i)
      result.push_back(x[i] / std::sqrt(mean + 1e-6) * norm[i]);
    for (int pair = 0; pair < 3; ++pair) {
      const double angle = position * std::pow(10000.0, -2.0 * pair / 6.0);
      const double a = x[kLatent + 2 * pair];
      const double b = x[kLatent + 1 + 2 * pair];
      result.push_back(a * std::cos(angle) - b * std::sin(angle));
      result.push_back(a * std::sin(angle) + b * std::cos(angle));
    }
    return result;
  }

  /// softmax(q . [W_k c | k_rope]) W_v c with every head's keys and values made: the naive form.
  std::vector<double> expanded() const {
    std::vector<double> out;
    for (int t = 0; t < kTokens; ++t) {
      for (int h = 0; h < 3; ++h) {
        const float* query = q.data() + (static_cast<ptrdiff_t>(t) * 3 + h) * kQHead;
        std::vector<double> value(10);
        double sum = 0.0;
        for (int p = 0; p <= kContext - kTokens + t; ++p) {
          const auto c = row(p);
          double score = 0.0;
          for (int n = 0; n < 8; ++n) {
            double key = 0.0;
            for (int r = 0; r < kLatent; ++r)
              key +=
                  w_k[static_cast<size_t>((h * 8 + n) * kLatent + r)] * c[static_cast<size_t>(r)];
            score += query[n] * key;
          }
          for (int i = 0; i < 6; ++i)
            score += query[8 + i] * c[static_cast<size_t>(kLatent + i)];
          const double weight = std::exp(score * kScale);
          sum += weight;
          for (int o = 0; o < 10; ++o) {
            for (int r = 0; r < kLatent; ++r)
              value[static_cast<size_t>(o)] +=
                  weight * w_v[static_cast<size_t>((h * 10 + o) * kLatent + r)] *
                  c[static_cast<size_t>(r)];
          }
        }
        for (const double v : value)
          out.push_back(v / sum);
      }
    }
    return out;
  }

  /// The absorbed form with the attention under test; the products around it in f64.
  std::vector<float> absorbed(const KernelSet& kernels, int n_tokens, ThreadPool& pool) {
    const int first_token = kTokens - n_tokens;
    std::vector<float> z(static_cast<size_t>(3 * n_tokens * kLatent));
    std::vector<int32_t> positions;
    for (int t = 0; t < n_tokens; ++t) {
      positions.push_back(kContext - n_tokens + t);
      for (int h = 0; h < 3; ++h) {
        for (int r = 0; r < kLatent; ++r) {
          double sum = 0.0;
          for (int n = 0; n < 8; ++n)
            sum += w_k[static_cast<size_t>((h * 8 + n) * kLatent + r)] *
                   q[static_cast<size_t>(((first_token + t) * 3 + h) * kQHead + n)];
          z[static_cast<size_t>((h * n_tokens + t) * kLatent + r)] = static_cast<float>(sum);
        }
      }
    }
    const int64_t stride = mla_scratch_size(kCols, kContext);
    std::vector<float> scratch(static_cast<size_t>(pool.n_threads() * stride));
    kernels.mla_attention({.z = z.data(),
                           .q = {q.data() + static_cast<ptrdiff_t>(first_token) * 3 * kQHead,
                                 3 * kQHead, n_tokens, 3 * kQHead},
                           .shape = kShape,
                           .pages = latent_pages(),
                           .scale = kScale,
                           .positions = positions.data(),
                           .block_table = table.data(),
                           .scratch = scratch.data(),
                           .scratch_stride = stride},
                          pool);
    std::vector<float> out;
    for (int t = 0; t < n_tokens; ++t) {
      for (int i = 0; i < 3 * 10; ++i) {
        double sum = 0.0;
        for (int r = 0; r < kLatent; ++r)
          sum += w_v[static_cast<size_t>(i * kLatent + r)] *
                 z[static_cast<size_t>((i / 10 * n_tokens + t) * kLatent + r)];
        out.push_back(static_cast<float>(sum));
      }
    }
    return out;
  }
};

TEST_CASE("The absorbed form of latent attention equals the expanded one") {
  for (const CpuKernels choice : {CpuKernels::kReference, CpuKernels::kFast}) {
    const KernelSet& kernels = select_kernels(choice);
    ThreadPool pool(2);
    INFO(kernels.name());
    MlaCase full(DType::F32);
    full.store(pool);
    CHECK(nmse(full.absorbed(kernels, MlaCase::kTokens, pool), full.expanded()) <= 1e-10);
    // Rows of f16 are rounded by up to 2^-11.
    MlaCase half(DType::F16);
    half.store(pool);
    CHECK(nmse(half.absorbed(kernels, MlaCase::kTokens, pool), half.expanded()) <= 1e-6);
  }
}

TEST_CASE("Latent attention gives a token the same bits alone, in company and on more threads") {
  for (const CpuKernels choice : {CpuKernels::kReference, CpuKernels::kFast}) {
    const KernelSet& kernels = select_kernels(choice);
    ThreadPool one(1);
    MlaCase fixture(DType::F32);
    fixture.store(one);
    const auto all = fixture.absorbed(kernels, MlaCase::kTokens, one);
    // One token: its chunks of keys are shared by the threads.
    for (const int n_threads : {1, 2, 3, 5}) {
      ThreadPool pool(n_threads);
      INFO(kernels.name() << ", " << n_threads << " threads");
      CHECK(fixture.absorbed(kernels, MlaCase::kTokens, pool) == all);
      const auto last = fixture.absorbed(kernels, 1, pool);
      CHECK(std::equal(last.begin(), last.end(), all.end() - 30));
    }
  }
}

}  // namespace
}  // namespace dsctl::engine
