// Latent attention's loops against the expanded form of the paper, in f64.
#include "engine/cpu/mla.h"

#include <cmath>
#include <random>
#include <vector>

#include "engine/cpu/rope.h"
#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"
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

/// Seven tokens at the end of a context of 30, in blocks of 4 that are out of order.
struct MlaCase {
  static constexpr MlaShape kShape{
      .n_heads = 3, .nope_dim = 8, .rope_dim = 6, .latent_dim = 20, .value_dim = 10};
  static constexpr int kQHead = 14;
  static constexpr int kContext = 30;
  static constexpr int kTokens = 7;
  static constexpr int kBlockSize = 4;
  static constexpr float kScale = 0.3f;

  std::vector<int32_t> table{7, 0, 11, 3, 5, 2, 9, 1};
  std::vector<float> w_k = normal_values(size_t{3} * 8 * 20, 1, 0.3f);   // (head, nope, latent)
  std::vector<float> w_v = normal_values(size_t{3} * 10 * 20, 2, 0.3f);  // (head, value, latent)
  std::vector<float> q = normal_values(size_t{kTokens} * 3 * kQHead, 3);
  std::vector<float> kv = normal_values(size_t{kContext} * 26, 4);
  std::vector<float> norm = normal_values(20, 5);
  std::vector<std::byte> pages;
  DType dtype;

  explicit MlaCase(DType type)
      : pages(static_cast<size_t>(gguf::row_size_bytes(type, 12 * kBlockSize * 26))), dtype(type) {}

  LatentPages latent_pages() { return {dtype, pages.data(), kBlockSize, 26}; }

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
                         .kv = {scratch.data(), 26, kContext, 26},
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
    const float* x = kv.data() + static_cast<ptrdiff_t>(position) * 26;
    double mean = 0.0;
    for (int i = 0; i < 20; ++i)
      mean += double{x[i]} * x[i] / 20.0;
    std::vector<double> result;
    for (size_t i = 0; i < 20; ++i)
      result.push_back(x[i] / std::sqrt(mean + 1e-6) * norm[i]);
    for (int pair = 0; pair < 3; ++pair) {
      const double angle = position * std::pow(10000.0, -2.0 * pair / 6.0);
      const double a = x[20 + 2 * pair];
      const double b = x[21 + 2 * pair];
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
            for (int r = 0; r < 20; ++r)
              key += w_k[static_cast<size_t>((h * 8 + n) * 20 + r)] * c[static_cast<size_t>(r)];
            score += query[n] * key;
          }
          for (int i = 0; i < 6; ++i)
            score += query[8 + i] * c[static_cast<size_t>(20 + i)];
          const double weight = std::exp(score * kScale);
          sum += weight;
          for (int o = 0; o < 10; ++o) {
            for (int r = 0; r < 20; ++r)
              value[static_cast<size_t>(o)] += weight *
                                               w_v[static_cast<size_t>((h * 10 + o) * 20 + r)] *
                                               c[static_cast<size_t>(r)];
          }
        }
        for (const double v : value)
          out.push_back(v / sum);
      }
    }
    return out;
  }

  /// The absorbed form, by the functions under test.
  std::vector<float> absorbed(ThreadPool& pool) {
    std::vector<float> z(size_t{kTokens} * 3 * 20);
    std::vector<float> out(size_t{kTokens} * 3 * 10);
    std::vector<float> scratch(2 * 128);
    const Rows queries{q.data(), 3 * kQHead, kTokens, 3 * kQHead};
    head_product({.y = {z.data(), 60, kTokens, 60},
                  .x = queries,
                  .x_step = kQHead,
                  .matrices = stack(w_k, 8, 20),
                  .product = HeadProduct::kTransposed,
                  .scratch = scratch.data()},
                 pool);
    std::vector<int32_t> positions;
    for (int t = 0; t < kTokens; ++t)
      positions.push_back(kContext - kTokens + t);
    mla_attention_reference({.z = {z.data(), 60, kTokens, 60},
                             .q = queries,
                             .shape = kShape,
                             .pages = latent_pages(),
                             .scale = kScale,
                             .positions = positions.data(),
                             .block_table = table.data(),
                             .scratch = scratch.data(),
                             .scratch_stride = 128},
                            pool);
    head_product({.y = {out.data(), 30, kTokens, 30},
                  .x = {z.data(), 60, kTokens, 60},
                  .x_step = 20,
                  .matrices = stack(w_v, 10, 20),
                  .product = HeadProduct::kPlain,
                  .scratch = scratch.data()},
                 pool);
    return out;
  }

  static MatrixStack stack(const std::vector<float>& values, int n_rows, int n_cols) {
    return {.first = {.dtype = DType::F32,
                      .n_rows = n_rows,
                      .n_cols = n_cols,
                      .data = reinterpret_cast<const std::byte*>(values.data()),
                      .row_stride_bytes = n_cols * 4},
            .n_matrices = 3,
            .stride_bytes = int64_t{n_rows} * n_cols * 4};
  }
};

TEST_CASE("The absorbed form of latent attention equals the expanded one") {
  ThreadPool pool(2);
  MlaCase full(DType::F32);
  full.store(pool);
  CHECK(nmse(full.absorbed(pool), full.expanded()) <= 1e-12);
  // Rows of f16 are rounded by up to 2^-11.
  MlaCase half(DType::F16);
  half.store(pool);
  CHECK(nmse(half.absorbed(pool), half.expanded()) <= 1e-6);
}

TEST_CASE("A head's product is the same plain, and transposed from the transposed matrix") {
  ThreadPool pool(2);
  constexpr int kHeads = 5;
  constexpr int kIn = 32;
  constexpr int kOut = 64;
  for (const DType dtype : {DType::F32, DType::F16, DType::Q8_0, DType::Q4_0}) {
    // Matrices (kIn, kOut) as they are quantised, and the values that they hold turned over.
    auto values = normal_values(size_t{kHeads} * kIn * kOut, 7);
    const auto n = static_cast<int64_t>(values.size());
    std::vector<std::byte> bytes(static_cast<size_t>(gguf::row_size_bytes(dtype, n)));
    gguf::quantize_row(dtype, values.data(), bytes.data(), n);
    gguf::dequantize_row(dtype, bytes.data(), values.data(), n);
    std::vector<float> turned(values.size());
    for (size_t h = 0; h < kHeads; ++h) {
      for (size_t r = 0; r < kIn; ++r) {
        for (size_t c = 0; c < kOut; ++c)
          turned[(h * kOut + c) * kIn + r] = values[(h * kIn + r) * kOut + c];
      }
    }
    const auto x = normal_values(size_t{3} * kHeads * kIn, 8);
    std::vector<float> scratch(2 * kOut);
    const auto product = [&](const MatrixStack& matrices, HeadProduct kind) {
      std::vector<float> y(size_t{3} * kHeads * kOut);
      head_product({.y = {y.data(), kHeads * kOut, 3, kHeads * kOut},
                    .x = {x.data(), kHeads * kIn, 3, kHeads * kIn},
                    .x_step = kIn,
                    .matrices = matrices,
                    .product = kind,
                    .scratch = scratch.data()},
                   pool);
      return y;
    };
    const int64_t row_bytes = gguf::row_size_bytes(dtype, kOut);
    const auto transposed = product({.first = {.dtype = dtype,
                                               .n_rows = kIn,
                                               .n_cols = kOut,
                                               .data = bytes.data(),
                                               .row_stride_bytes = row_bytes},
                                     .n_matrices = kHeads,
                                     .stride_bytes = row_bytes * kIn},
                                    HeadProduct::kTransposed);
    const auto plain = product({.first = {.dtype = DType::F32,
                                          .n_rows = kOut,
                                          .n_cols = kIn,
                                          .data = reinterpret_cast<const std::byte*>(turned.data()),
                                          .row_stride_bytes = kIn * 4},
                                .n_matrices = kHeads,
                                .stride_bytes = int64_t{kOut} * kIn * 4},
                               HeadProduct::kPlain);
    std::vector<double> wanted;
    for (size_t t = 0; t < 3; ++t) {
      for (size_t o = 0; o < size_t{kHeads} * kOut; ++o) {
        double sum = 0.0;
        for (size_t i = 0; i < kIn; ++i)
          sum += double{turned[o * kIn + i]} * x[(t * kHeads + o / kOut) * kIn + i];
        wanted.push_back(sum);
      }
    }
    INFO(gguf::dtype_info(dtype).name);
    CHECK(nmse(plain, wanted) <= 1e-12);
    CHECK(nmse(transposed, wanted) <= 1e-12);
  }
}

}  // namespace
}  // namespace dsctl::engine
