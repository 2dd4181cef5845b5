// The reference loops of engine/cpu against the same formulas in f64.
#include "engine/ops.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "engine/cpu/attention.h"
#include "engine/cpu/cpu_ops.h"
#include "engine/cpu/embed.h"
#include "engine/cpu/ffn.h"
#include "engine/cpu/head.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/norm.h"
#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"
#include "gguf/quants/half.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"

namespace dsctl::engine {
namespace {

using gguf::DType;

std::vector<float> normal_values(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values)
    value = normal(random);
  return values;
}

double nmse(const std::vector<float>& actual, const std::vector<double>& expected) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return error / norm;
}

Rows rows_of(const std::vector<float>& values, int n_cols) {
  return {values.data(), n_cols, static_cast<int>(values.size()) / n_cols, n_cols};
}

MutableRows rows_of(std::vector<float>& values, int n_cols) {
  return {values.data(), n_cols, static_cast<int>(values.size()) / n_cols, n_cols};
}

std::vector<double> rmsnorm_f64(const float* x, const float* weight, size_t n, double eps) {
  double mean = 0.0;
  for (size_t i = 0; i < n; ++i)
    mean += double{x[i]} * x[i] / static_cast<double>(n);
  std::vector<double> y(n);
  for (size_t i = 0; i < n; ++i)
    y[i] = x[i] / std::sqrt(mean + eps) * weight[i];
  return y;
}

/// A KV cache of one layer filled with random numbers, and a batch of two sequences in it.
struct AttentionCase {
  static constexpr int kBlockSize = 4;
  static constexpr int kHeadDim = 24;
  static constexpr int kKvHeads = 2;
  static constexpr int kHeads = 6;
  static constexpr int kBlocks = 12;
  static constexpr int kMaxBlocks = 6;

  DType dtype;
  std::vector<float> k = normal_values(size_t{kBlocks} * kKvHeads * kBlockSize * kHeadDim, 1);
  std::vector<float> v = normal_values(k.size(), 2);
  std::vector<std::byte> k_pages;
  std::vector<std::byte> v_pages;
  // Five tokens at the end of a context of 22, and one alone.
  std::vector<int32_t> positions{17, 18, 19, 20, 21, 0};
  std::vector<int32_t> query_starts{0, 5, 6};
  std::vector<int32_t> block_tables{7, 0, 11, 3, 5, 2, 9, -1, -1, -1, -1, -1};
  std::vector<float> q = normal_values(size_t{6} * kHeads * kHeadDim, 3);
  std::vector<float> scratch = std::vector<float>(2 * (kAttentionScratch + 64));

  explicit AttentionCase(DType type) : dtype(type) {
    k_pages = pages(k);
    v_pages = pages(v);
  }

  /// `values` as pages; they are rounded to what the pages hold.
  std::vector<std::byte> pages(std::vector<float>& values) const {
    const auto n = static_cast<int64_t>(values.size());
    std::vector<std::byte> bytes(static_cast<size_t>(gguf::row_size_bytes(dtype, n)));
    gguf::quantize_row(dtype, values.data(), bytes.data(), n);
    gguf::dequantize_row(dtype, bytes.data(), values.data(), n);
    return bytes;
  }

  AttentionArgs args(std::vector<float>& out) {
    AttentionArgs result;
    result.out = rows_of(out, kHeads * kHeadDim);
    result.q = rows_of(q, kHeads * kHeadDim);
    result.kv = {dtype, k_pages.data(), v_pages.data(), kBlockSize, kKvHeads, kHeadDim};
    result.n_heads = kHeads;
    result.scale = 0.3f;
    result.positions = positions.data();
    result.query_starts = query_starts.data();
    result.block_tables = block_tables.data();
    result.n_seqs = 2;
    result.max_blocks_per_seq = kMaxBlocks;
    result.scratch = scratch.data();
    result.scratch_stride = kAttentionScratch + 64;
    return result;
  }

  /// softmax(scale q . k) v, written without regard to pages or order.
  std::vector<double> expected(const AttentionArgs& args) const {
    std::vector<double> out;
    for (size_t token = 0; token < positions.size(); ++token) {
      const size_t seq = token < 5 ? 0 : 1;
      for (size_t head = 0; head < kHeads; ++head) {
        const float* query = &q[(token * kHeads + head) * kHeadDim];
        std::vector<double> result(kHeadDim, 0.0);
        double total = 0.0;
        for (int p = 0; p <= positions[token]; ++p) {
          if (args.window > 0 && positions[token] - p >= args.window) continue;
          const auto block = static_cast<size_t>(
              block_tables[seq * kMaxBlocks + static_cast<size_t>(p / kBlockSize)]);
          const size_t row =
              (block * kKvHeads + head / 3) * kBlockSize + static_cast<size_t>(p % kBlockSize);
          double score = 0.0;
          for (size_t i = 0; i < kHeadDim; ++i)
            score += double{query[i]} * k[row * kHeadDim + i];
          score *= args.scale;
          if (args.softcap > 0.0f) score = args.softcap * std::tanh(score / args.softcap);
          total += std::exp(score);
          for (size_t i = 0; i < kHeadDim; ++i)
            result[i] += std::exp(score) * v[row * kHeadDim + i];
        }
        for (const double value : result)
          out.push_back(value / total);
      }
    }
    return out;
  }
};

}  // namespace

TEST_CASE("Reference linear is the dot product of the dequantised rows, for every type") {
  constexpr int kCols = 512;
  constexpr int kRows = 13;
  constexpr int kTokens = 5;
  ThreadPool pool(2);
  for (const DType dtype :
       {DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1,
        DType::Q8_0, DType::Q4_K, DType::Q5_K, DType::Q6_K}) {
    auto values = normal_values(size_t{kRows} * kCols, 5);
    std::vector<std::byte> bytes(
        static_cast<size_t>(gguf::row_size_bytes(dtype, int64_t{kRows} * kCols)));
    gguf::quantize_row(dtype, values.data(), bytes.data(), int64_t{kRows} * kCols);
    gguf::dequantize_row(dtype, bytes.data(), values.data(), int64_t{kRows} * kCols);
    // The slice of a row-parallel rank: columns [256, 512).
    const MatrixView view{dtype, kRows, 256, bytes.data() + gguf::row_size_bytes(dtype, 256),
                          gguf::row_size_bytes(dtype, kCols)};
    const auto x = normal_values(size_t{kTokens} * 256, 6);
    const auto bias = normal_values(kRows, 7);
    std::vector<float> y(size_t{kTokens} * kRows);
    const auto weight = make_reference_weight(view);
    const auto input = make_reference_input(kTokens, 256, 2);
    input->assign(rows_of(x, 256), pool);
    const LinearOutput output{weight.get(), bias.data(), y.data(), kRows};
    linear_reference(*input, {&output, 1}, pool);

    std::vector<double> expected;
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t r = 0; r < kRows; ++r) {
        double sum = bias[r];
        for (size_t i = 0; i < 256; ++i)
          sum += double{values[r * kCols + 256 + i]} * x[t * 256 + i];
        expected.push_back(sum);
      }
    }
    INFO(gguf::dtype_info(dtype).name);
    CHECK(nmse(y, expected) <= 1e-12);
  }
}

TEST_CASE("dot adds up lengths that are no multiple of its lanes") {
  const auto a = normal_values(100, 1);
  const auto b = normal_values(100, 2);
  for (const int n : {0, 1, 15, 16, 17, 47, 100}) {
    double expected = 0.0;
    for (size_t i = 0; i < static_cast<size_t>(n); ++i)
      expected += double{a[i]} * b[i];
    CHECK(dot(a.data(), b.data(), n) == Approx(expected).margin(1e-5));
  }
}

TEST_CASE("rmsnorm divides by the root of the mean square and may work in place") {
  constexpr size_t kDim = 576;
  auto x = normal_values(kDim, 1);
  const auto weight = normal_values(kDim, 2);
  for (const float scale : {1e-4f, 1.0f, 1e4f}) {
    for (float& value : x)
      value *= scale;
    const auto expected = rmsnorm_f64(x.data(), weight.data(), kDim, 1e-6);
    std::vector<float> y = x;
    rmsnorm(y.data(), y.data(), weight.data(), kDim, 1e-6f);
    CHECK(nmse(y, expected) <= 1e-12);
  }
}

TEST_CASE("add takes the bias and the post-norm before the sum") {
  constexpr size_t kDim = 64;
  ThreadPool pool(1);
  const auto bias = normal_values(kDim, 3);
  const auto norm = normal_values(kDim, 4);
  for (const bool post_norm : {false, true}) {
    auto x = normal_values(kDim, 1);
    auto y = normal_values(kDim, 2);
    std::vector<float> branch = y;
    for (size_t i = 0; i < kDim; ++i)
      branch[i] += bias[i];
    const auto normalised = rmsnorm_f64(branch.data(), norm.data(), kDim, 1e-5);
    std::vector<double> expected;
    for (size_t i = 0; i < kDim; ++i)
      expected.push_back(x[i] + (post_norm ? normalised[i] : double{branch[i]}));
    add_reference({.x = rows_of(x, kDim),
                   .y = rows_of(y, kDim),
                   .bias = bias.data(),
                   .post_norm = post_norm ? norm.data() : nullptr,
                   .eps = 1e-5f},
                  pool);
    CHECK(nmse(x, expected) <= 1e-12);
  }
}

TEST_CASE("The gates are silu and the tanh form of gelu, finite at the ends") {
  const std::vector<float> gate{-200.0f, -90.0f, -3.0f, -0.5f, 0.0f, 0.5f, 3.0f, 90.0f, 200.0f};
  const std::vector<float> up(gate.size(), 2.0f);
  std::vector<float> y(gate.size());
  const int n = static_cast<int>(gate.size());
  gated(y.data(), gate.data(), up.data(), n, Activation::kSilu);
  for (size_t i = 0; i < gate.size(); ++i)
    CHECK(y[i] == Approx(2.0 * gate[i] / (1.0 + std::exp(-double{gate[i]}))).margin(1e-7));
  gated(y.data(), gate.data(), up.data(), n, Activation::kGeluTanh);
  for (size_t i = 0; i < gate.size(); ++i) {
    const double x = gate[i];
    const double inner = std::sqrt(2.0 / M_PI) * (x + 0.044715 * x * x * x);
    CHECK(y[i] == Approx(x * (1.0 + std::tanh(inner))).margin(1e-6));
  }
}

TEST_CASE("Attention is softmax over the context of each head's KV head") {
  for (const DType dtype : {DType::F32, DType::F16}) {
    for (const int window : {0, 1, 5, 18, 100}) {
      for (const float softcap : {0.0f, 2.0f}) {
        for (const int n_threads : {1, 2}) {
          AttentionCase test(dtype);
          std::vector<float> out(test.q.size(), NAN);
          AttentionArgs args = test.args(out);
          args.window = window;
          args.softcap = softcap;
          ThreadPool pool(n_threads);
          attention_reference(args, pool);
          INFO(gguf::dtype_info(dtype).name << ", window " << window << ", cap " << softcap);
          CHECK(nmse(out, test.expected(args)) <= 1e-12);
        }
      }
    }
  }
}

TEST_CASE("Attention of large scores does not overflow") {
  AttentionCase test(DType::F32);
  std::vector<float> out(test.q.size());
  AttentionArgs args = test.args(out);
  args.scale = 1e4f;
  ThreadPool pool(1);
  attention_reference(args, pool);
  CHECK(std::ranges::all_of(out, [](float value) { return std::isfinite(value); }));
}

TEST_CASE("rope_store normalises, turns and writes only the slots of its tokens") {
  constexpr int kHeadDim = 8;
  constexpr int kBlockSize = 4;
  const std::vector<int32_t> slots{9, 2};
  const std::vector<int32_t> positions{5, 6};
  const auto norm = normal_values(kHeadDim, 4);
  const Rope rope = make_rope({.style = RopeStyle::kNeox, .n_dims = 4, .freq_base = 100.0});
  std::vector<float> cos_sin(2 * 4);
  rope_table(rope, positions.data(), 2, cos_sin.data());
  ThreadPool pool(2);
  for (const DType dtype : {DType::F32, DType::F16}) {
    auto q = normal_values(size_t{2} * 4 * kHeadDim, 1);
    auto k = normal_values(size_t{2} * 2 * kHeadDim, 2);
    const auto v = normal_values(size_t{2} * 2 * kHeadDim, 3);
    const auto plain_k = k;
    const auto plain_q = q;
    const size_t n_elems = size_t{3} * 2 * kBlockSize * kHeadDim;
    const size_t n_bytes = static_cast<size_t>(gguf::row_size_bytes(dtype, n_elems));
    std::vector<std::byte> k_pages(n_bytes, std::byte{0xff});  // NaN in both types
    std::vector<std::byte> v_pages = k_pages;
    rope_store_reference({.q = rows_of(q, 4 * kHeadDim),
                          .k = rows_of(k, 2 * kHeadDim),
                          .v = rows_of(v, 2 * kHeadDim),
                          .q_norm = nullptr,
                          .k_norm = norm.data(),
                          .norm_eps = 1e-6f,
                          .style = rope.style,
                          .n_dims = rope.n_dims,
                          .cos_sin = cos_sin.data(),
                          .kv = {dtype, k_pages.data(), v_pages.data(), kBlockSize, 2, kHeadDim},
                          .n_heads = 4,
                          .slot_mapping = slots.data()},
                         pool);
    std::vector<float> stored_k(n_elems);
    std::vector<float> stored_v(n_elems);
    gguf::dequantize_row(dtype, k_pages.data(), stored_k.data(), n_elems);
    gguf::dequantize_row(dtype, v_pages.data(), stored_v.data(), n_elems);
    const auto n_written = [](const std::vector<float>& values) {
      return std::ranges::count_if(values, [](float value) { return !std::isnan(value); });
    };
    CHECK(n_written(stored_k) == 2 * 2 * kHeadDim);
    CHECK(n_written(stored_v) == 2 * 2 * kHeadDim);
    for (size_t t = 0; t < 2; ++t) {
      for (size_t head = 0; head < 2; ++head) {
        const auto slot = static_cast<size_t>(slots[t]);
        const size_t at = ((slot / 4 * 2 + head) * 4 + slot % 4) * kHeadDim;
        const size_t from = (t * 2 + head) * kHeadDim;
        auto expected = rmsnorm_f64(&plain_k[from], norm.data(), kHeadDim, 1e-6);
        for (size_t i = 0; i < 2; ++i) {
          const double angle = positions[t] * std::pow(100.0, -2.0 * static_cast<double>(i) / 4);
          const double a = expected[i];
          const double b = expected[i + 2];
          expected[i] = a * std::cos(angle) - b * std::sin(angle);
          expected[i + 2] = a * std::sin(angle) + b * std::cos(angle);
        }
        for (size_t i = 0; i < kHeadDim; ++i) {
          CHECK(stored_k[at + i] == Approx(expected[i]).epsilon(1e-3).margin(1e-5));
          CHECK(stored_v[at + i] == Approx(v[from + i]).epsilon(1e-3));
        }
      }
    }
    // q is turned but not normalised: its length stays.
    CHECK(dot(q.data(), q.data(), kHeadDim) ==
          Approx(dot(plain_q.data(), plain_q.data(), kHeadDim)));
    CHECK(q != plain_q);
  }
}

TEST_CASE("embed dequantises the rows of its tokens and scales them") {
  ThreadPool pool(2);
  auto table = normal_values(size_t{10} * 32, 1);
  std::vector<std::byte> bytes(static_cast<size_t>(gguf::row_size_bytes(DType::Q8_0, 320)));
  gguf::quantize_row(DType::Q8_0, table.data(), bytes.data(), 320);
  gguf::dequantize_row(DType::Q8_0, bytes.data(), table.data(), 320);
  const std::vector<int32_t> tokens{9, 0, 9};
  std::vector<float> x(3 * 32);
  embed(rows_of(x, 32), {DType::Q8_0, 10, 32, bytes.data(), 34}, tokens.data(), 3.0f, pool);
  for (size_t t = 0; t < tokens.size(); ++t) {
    for (size_t i = 0; i < 32; ++i)
      CHECK(x[t * 32 + i] == table[static_cast<size_t>(tokens[t]) * 32 + i] * 3.0f);
  }
}

TEST_CASE("The shares of the vocabulary are joined to whole rows") {
  // Two rows; rank 0 has tokens 0..2, rank 1 tokens 3 and 4.
  const std::vector<float> gathered{0, 1, 2, 10, 11, 12, 3, 4, 13, 14};
  const std::vector<int64_t> bounds{0, 3, 5};
  std::vector<float> logits(10);
  join_shares(rows_of(logits, 5), gathered.data(), bounds.data(), 2);
  CHECK(logits == std::vector<float>{0, 1, 2, 3, 4, 10, 11, 12, 13, 14});
}

TEST_CASE("The soft cap bounds logits and keeps their order") {
  ThreadPool pool(1);
  std::vector<float> logits{-1000.0f, -1.0f, 0.0f, 1.0f, 25.0f, 1000.0f};
  soft_cap(rows_of(logits, 6), 30.0f, pool);
  CHECK(logits[5] == Approx(30.0f));
  CHECK(logits[0] == Approx(-30.0f));
  CHECK(logits[4] == Approx(30.0 * std::tanh(25.0 / 30.0)));
  CHECK(std::ranges::is_sorted(logits));
}

}  // namespace dsctl::engine
