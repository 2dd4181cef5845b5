// Random valid weights of every type, and products with them in f64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/tensor.h"

namespace dsctl::tests {

std::vector<float> normal_values(int64_t n, uint64_t seed);

/// A matrix whose rows lie gap_bytes further apart than they need, as a slice along the columns of
/// a wider matrix does.
struct TestMatrix {
  std::vector<std::byte> bytes;
  engine::MatrixView view;
  std::vector<float> values;  // (n_rows, n_cols), dequantised

  TestMatrix(gguf::DType dtype, int64_t n_rows, int64_t n_cols, uint64_t seed,
             int64_t gap_bytes = 0);
};

/// Every type that a tensor can have.
std::vector<gguf::DType> all_types();

/// W x for each row of x: (n_tokens, n_rows).
std::vector<double> multiply_exactly(const TestMatrix& matrix, std::span<const double> x);

/// x / sqrt(mean(x^2) + eps) * weight, of rows of `n_cols`.
std::vector<double> rmsnorm_exactly(std::span<const float> x, std::span<const float> weight,
                                    int n_cols, double eps);

/// sum((a - b)^2) / sum(b^2); infinite when a value is NaN.
double nmse(std::span<const float> a, std::span<const double> b);

}  // namespace dsctl::tests
