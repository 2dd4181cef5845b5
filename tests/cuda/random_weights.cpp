#include "tests/cuda/random_weights.h"

#include <cmath>
#include <limits>
#include <random>

#include "gguf/quants/all.h"
#include "gguf/random_block.h"

namespace dsctl::tests {

using gguf::DType;

std::vector<float> normal_values(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values)
    value = normal(random);
  return values;
}

TestMatrix::TestMatrix(DType dtype, int64_t n_rows, int64_t n_cols, uint64_t seed,
                       int64_t gap_bytes) {
  std::mt19937_64 random(seed);
  const gguf::DTypeInfo& info = gguf::dtype_info(dtype);
  const int64_t row_bytes = gguf::row_size_bytes(dtype, n_cols);
  const int64_t stride = row_bytes + gap_bytes;
  bytes.resize(static_cast<size_t>((n_rows - 1) * stride + row_bytes));
  values.resize(static_cast<size_t>(n_rows * n_cols));
  for (int64_t r = 0; r < n_rows; ++r) {
    std::byte* row = bytes.data() + r * stride;
    for (int64_t offset = 0; offset < row_bytes; offset += info.block_bytes)
      gguf::random_block(dtype, 1.0f, row + offset, random);
    gguf::dequantize_row(dtype, row, values.data() + r * n_cols, n_cols);
  }
  view.dtype = dtype;
  view.n_rows = n_rows;
  view.n_cols = n_cols;
  view.data = bytes.data();
  view.row_stride_bytes = stride;
}

std::vector<DType> all_types() {
  std::vector<DType> types;
  for (uint32_t id = 0; id < 64; ++id) {
    if (const auto dtype = gguf::dtype_from_id(id)) types.push_back(*dtype);
  }
  return types;
}

std::vector<double> multiply_exactly(const TestMatrix& matrix, std::span<const double> x) {
  const auto n_rows = static_cast<size_t>(matrix.view.n_rows);
  const auto n_cols = static_cast<size_t>(matrix.view.n_cols);
  std::vector<double> y;
  for (size_t t = 0; t < x.size() / n_cols; ++t) {
    for (size_t r = 0; r < n_rows; ++r) {
      double sum = 0.0;
      for (size_t i = 0; i < n_cols; ++i)
        sum += static_cast<double>(matrix.values[r * n_cols + i]) * x[t * n_cols + i];
      y.push_back(sum);
    }
  }
  return y;
}

std::vector<double> rmsnorm_exactly(std::span<const float> x, std::span<const float> weight,
                                    int n_cols, double eps) {
  const auto n = static_cast<size_t>(n_cols);
  std::vector<double> y;
  for (size_t row = 0; row < x.size(); row += n) {
    double mean = 0.0;
    for (size_t i = 0; i < n; ++i)
      mean += static_cast<double>(x[row + i]) * x[row + i] / n_cols;
    for (size_t i = 0; i < n; ++i)
      y.push_back(x[row + i] / std::sqrt(mean + eps) * weight[i]);
  }
  return y;
}

double nmse(std::span<const float> a, std::span<const double> b) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double difference = static_cast<double>(a[i]) - b[i];
    error += difference * difference;
    norm += b[i] * b[i];
  }
  return std::isfinite(error) ? error / norm : std::numeric_limits<double>::infinity();
}

}  // namespace dsctl::tests
