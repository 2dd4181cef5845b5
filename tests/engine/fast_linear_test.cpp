#include "engine/cpu/fast/fast_linear.h"

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "gguf/quants/all.h"
#include "gguf/quants/encode.h"
#include "gguf/quants/half.h"
#include "tests/support/catch.h"

namespace dsctl::engine::fast {
namespace {

using gguf::DType;

const std::vector<DType> kPanelTypes = {
    DType::Q4_0, DType::Q4_1, DType::Q5_0, DType::Q5_1,   DType::Q8_0,   DType::Q2_K, DType::Q3_K,
    DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS, DType::MXFP4};
const std::vector<DType> kPlainTypes = {DType::F32, DType::F16, DType::BF16};
const std::vector<DType> kOtherTypes = {DType::IQ2_XXS, DType::IQ3_S, DType::TQ1_0};

/// The instruction sets of this processor.
std::vector<const LinearIsa*> isas() {
  std::vector<const LinearIsa*> result;
  if (cpu_features().avx2) result.push_back(&linear_avx2());
  if (cpu_features().avx512_vnni) result.push_back(&linear_avx512());
  return result;
}

const VectorIsa& vector_of(const LinearIsa& isa) {
  return &isa == &linear_avx2() ? vector_avx2() : vector_avx512();
}

/// A matrix whose rows end exactly where its memory ends, so that AddressSanitizer sees a read
/// beyond the last byte of a mapped file.
struct Matrix {
  std::vector<std::byte> bytes;
  MatrixView view;
  std::vector<double> values;  // (n_rows, n_cols), dequantised
};

/// Random valid blocks: real quantised data where there is an encoder, else random bits with sane
/// scales (an f16 at the offsets given).
std::vector<std::byte> random_row(DType dtype, int64_t n_cols, std::mt19937& random) {
  const gguf::DTypeInfo& info = gguf::dtype_info(dtype);
  std::vector<std::byte> row(static_cast<size_t>(gguf::row_size_bytes(dtype, n_cols)));
  if (gguf::can_quantize(dtype)) {
    std::normal_distribution<float> normal;
    std::vector<float> values(static_cast<size_t>(n_cols));
    for (float& value : values)
      value = normal(random);
    gguf::quantize_row(dtype, values.data(), row.data(), n_cols);
    return row;
  }
  for (std::byte& byte : row)
    byte = std::byte(random() & 255);
  std::uniform_real_distribution<float> scale(0.01f, 0.1f);
  for (size_t block = 0; block < row.size(); block += static_cast<size_t>(info.block_bytes)) {
    const auto put_half = [&](size_t offset) {
      const uint16_t half = gguf::float_to_half(scale(random));
      std::memcpy(row.data() + block + offset, &half, 2);
    };
    if (dtype == DType::Q2_K) {
      put_half(80);
      put_half(82);
    } else if (dtype == DType::Q3_K) {
      put_half(108);
    } else if (dtype == DType::TQ1_0) {
      put_half(52);
    } else if (dtype == DType::MXFP4) {
      row[block] = std::byte(120 + random() % 8);
    } else {
      put_half(0);
    }
  }
  return row;
}

Matrix random_matrix(DType dtype, int64_t n_rows, int64_t n_cols, int64_t gap_bytes,
                     uint32_t seed) {
  std::mt19937 random(seed);
  const int64_t row_bytes = gguf::row_size_bytes(dtype, n_cols);
  Matrix matrix;
  matrix.bytes.resize(static_cast<size_t>((n_rows - 1) * (row_bytes + gap_bytes) + row_bytes));
  matrix.view = {.dtype = dtype,
                 .n_rows = n_rows,
                 .n_cols = n_cols,
                 .data = matrix.bytes.data(),
                 .row_stride_bytes = row_bytes + gap_bytes};
  std::vector<float> values(static_cast<size_t>(n_cols));
  for (int64_t r = 0; r < n_rows; ++r) {
    const std::vector<std::byte> row = random_row(dtype, n_cols, random);
    std::memcpy(matrix.bytes.data() + r * (row_bytes + gap_bytes), row.data(), row.size());
    gguf::dequantize_row(dtype, row.data(), values.data(), n_cols);
    matrix.values.insert(matrix.values.end(), values.begin(), values.end());
  }
  return matrix;
}

std::vector<float> random_values(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values)
    value = normal(random);
  return values;
}

/// Exact to f64, (n_tokens, n_rows).
struct Exact {
  std::vector<double> y;
  /// Sum of the squares of all products: what y's own power is for random signs, without the
  /// chance that a single output is near zero.
  double power = 0;
};

Exact multiply_exactly(const Matrix& matrix, const std::vector<float>& x, int n_tokens) {
  const int64_t n_rows = matrix.view.n_rows;
  const int64_t n_cols = matrix.view.n_cols;
  Exact exact;
  for (int t = 0; t < n_tokens; ++t) {
    for (int64_t r = 0; r < n_rows; ++r) {
      double sum = 0;
      for (int64_t k = 0; k < n_cols; ++k) {
        const double product = matrix.values[static_cast<size_t>(r * n_cols + k)] *
                               static_cast<double>(x[static_cast<size_t>(t * n_cols + k)]);
        sum += product;
        exact.power += product * product;
      }
      exact.y.push_back(sum);
    }
  }
  return exact;
}

std::vector<float> multiply(const LinearIsa& isa, const LinearWeight& weight, const float* x,
                            int n_tokens, ThreadPool& pool, const float* bias = nullptr) {
  const auto n_cols = static_cast<int>(weight.n_cols());
  auto input = make_input(isa, vector_of(isa), n_tokens, n_cols, pool.n_threads());
  input->assign({x, n_cols, n_tokens, n_cols}, pool);
  std::vector<float> y(static_cast<size_t>(n_tokens * weight.n_rows()), NAN);
  const LinearOutput output{&weight, bias, y.data(), weight.n_rows()};
  linear(isa, *input, {&output, 1}, pool);
  return y;
}

double nmse(const std::vector<float>& got, const Exact& want) {
  double error = 0;
  for (size_t i = 0; i < want.y.size(); ++i) {
    const double difference = static_cast<double>(got[i]) - want.y[i];
    error += difference * difference;
  }
  return error / want.power;
}

std::vector<int64_t> column_counts(DType dtype) {
  const int block = gguf::dtype_info(dtype).block_elems;
  if (block == 256) return {256, 768};
  if (block == 32) return {32, 96, 224, 576};
  return {1, 15, 33, 200};
}

std::vector<DType> all_types() {
  std::vector<DType> types = kPanelTypes;
  types.insert(types.end(), kPlainTypes.begin(), kPlainTypes.end());
  types.insert(types.end(), kOtherTypes.begin(), kOtherTypes.end());
  return types;
}

/// Activations in 16 bits of blocks of 32 cost about 5e-10; f32 products only their rounding.
double bound(DType dtype) {
  for (const DType type : kPanelTypes) {
    if (type == dtype) return 2e-9;
  }
  return 1e-10;
}

TEST_CASE("fast linear agrees with the exact product of the dequantised weights") {
  WeightArena arena;
  ThreadPool pool(2);
  for (const LinearIsa* isa : isas()) {
    for (const DType dtype : all_types()) {
      for (const int64_t n_cols : column_counts(dtype)) {
        for (const int64_t n_rows : {1, 16, 37}) {
          // A gap between rows: a column slice of a wider matrix.
          const Matrix matrix = random_matrix(dtype, n_rows, n_cols, 6, 1);
          const auto weight = make_weight(*isa, matrix.view, arena);
          for (const int n_tokens : {1, 2, 3, 5, 8, 13, 17}) {
            const auto x = random_values(n_tokens * n_cols, 2);
            const auto want = multiply_exactly(matrix, x, n_tokens);
            const auto got = multiply(*isa, *weight, x.data(), n_tokens, pool);
            INFO(isa->name << " " << gguf::dtype_info(dtype).name << " " << n_rows << " x "
                           << n_cols << ", " << n_tokens << " tokens");
            // Few outputs: their error is a sample, not a mean.
            CHECK(nmse(got, want) < (n_rows * n_tokens < 16 ? 10 : 1) * bound(dtype));
          }
        }
      }
    }
  }
}

TEST_CASE("fast linear gives a token the same bits alone and in any batch and thread count") {
  WeightArena arena;
  ThreadPool one(1);
  ThreadPool two(2);
  ThreadPool three(3);
  constexpr int kTokens = 17;
  for (const LinearIsa* isa : isas()) {
    for (const DType dtype : all_types()) {
      const int64_t n_cols = column_counts(dtype).back();
      const Matrix matrix = random_matrix(dtype, 83, n_cols, 0, 3);
      const auto weight = make_weight(*isa, matrix.view, arena);
      const auto x = random_values(kTokens * n_cols, 4);
      std::vector<float> alone;
      for (int t = 0; t < kTokens; ++t) {
        const auto y = multiply(*isa, *weight, x.data() + t * n_cols, 1, one);
        alone.insert(alone.end(), y.begin(), y.end());
      }
      for (ThreadPool* pool : {&one, &two, &three}) {
        for (int n_tokens = 1; n_tokens <= kTokens; ++n_tokens) {
          const auto y = multiply(*isa, *weight, x.data(), n_tokens, *pool);
          INFO(isa->name << " " << gguf::dtype_info(dtype).name << ", " << n_tokens << " tokens, "
                         << pool->n_threads() << " threads");
          CHECK(std::memcmp(y.data(), alone.data(), y.size() * sizeof(float)) == 0);
        }
      }
    }
  }
}

TEST_CASE("fast linear gives the same bits with AVX2 and AVX-512") {
  WeightArena arena;
  if (isas().size() < 2) {
    WARN("no AVX-512 here");
    return;
  }
  ThreadPool pool(1);
  for (const DType dtype : all_types()) {
    const int64_t n_cols = column_counts(dtype).back();
    const Matrix matrix = random_matrix(dtype, 40, n_cols, 0, 5);
    const auto x = random_values(9 * n_cols, 6);
    std::vector<std::vector<float>> results;
    for (const LinearIsa* isa : isas()) {
      results.push_back(multiply(*isa, *make_weight(*isa, matrix.view, arena), x.data(), 9, pool));
    }
    INFO(gguf::dtype_info(dtype).name);
    CHECK(results[0] == results[1]);
  }
}

TEST_CASE("fast linear applies several weights of different types to one input") {
  WeightArena arena;
  ThreadPool pool(2);
  for (const LinearIsa* isa : isas()) {
    constexpr int kTokens = 11;
    constexpr int kCols = 256;
    const auto x = random_values(kTokens * kCols, 7);
    std::vector<Matrix> matrices;
    std::vector<std::unique_ptr<LinearWeight>> weights;
    std::vector<std::vector<float>> biases;
    std::vector<std::vector<float>> ys;
    std::vector<LinearOutput> outputs;
    for (const DType dtype : {DType::Q6_K, DType::F16, DType::Q4_1, DType::IQ3_S, DType::F32}) {
      matrices.push_back(random_matrix(dtype, 50, kCols, 0, 8));
      weights.push_back(make_weight(*isa, matrices.back().view, arena));
      biases.push_back(random_values(50, 9));
      ys.emplace_back(static_cast<size_t>(kTokens * 50), NAN);
    }
    auto input = make_input(*isa, vector_of(*isa), kTokens, kCols, pool.n_threads());
    input->assign({x.data(), kCols, kTokens, kCols}, pool);
    for (size_t i = 0; i < weights.size(); ++i) {
      outputs.push_back({weights[i].get(), biases[i].data(), ys[i].data(), 50});
    }
    linear(*isa, *input, outputs, pool);
    for (size_t i = 0; i < weights.size(); ++i) {
      const auto alone = multiply(*isa, *weights[i], x.data(), kTokens, pool, biases[i].data());
      CHECK(ys[i] == alone);
      auto want = multiply_exactly(matrices[i], x, kTokens);
      for (size_t j = 0; j < want.y.size(); ++j)
        want.y[j] += static_cast<double>(biases[i][j % 50]);
      CHECK(nmse(alone, want) < 2e-9);
    }
  }
}

TEST_CASE("fast linear keeps zeros, tiny and huge values") {
  WeightArena arena;
  ThreadPool pool(1);
  for (const LinearIsa* isa : isas()) {
    const Matrix matrix = random_matrix(DType::Q8_0, 16, 64, 0, 10);
    const auto weight = make_weight(*isa, matrix.view, arena);
    std::vector<float> x(64, 0.0f);
    CHECK(multiply(*isa, *weight, x.data(), 1, pool) == std::vector<float>(16, 0.0f));
    x[3] = 1e-40f;  // its inverse is beyond f32
    for (const float y : multiply(*isa, *weight, x.data(), 1, pool))
      CHECK(std::abs(y) < 1e-30f);
    x[3] = 1e30f;
    CHECK(nmse(multiply(*isa, *weight, x.data(), 1, pool), multiply_exactly(matrix, x, 1)) < 1e-6);
    x[40] = INFINITY;
    for (const float y : multiply(*isa, *weight, x.data(), 1, pool))
      CHECK(!std::isfinite(y));
  }
}

TEST_CASE("a repacked weight is not larger than the file's by more than 6 %") {
  WeightArena arena;
  for (const LinearIsa* isa : isas()) {
    for (const DType dtype : kPanelTypes) {
      const Matrix matrix = random_matrix(dtype, 64, 512, 0, 11);
      const auto weight = make_weight(*isa, matrix.view, arena);
      const double growth =
          static_cast<double>(weight->owned_bytes()) / static_cast<double>(matrix.bytes.size());
      INFO(gguf::dtype_info(dtype).name);
      CHECK(growth < 1.06);
    }
  }
}

}  // namespace
}  // namespace dsctl::engine::fast
