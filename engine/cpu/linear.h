// Linear layers on the CPU: a weight is prepared once at load, an input once for all the weights
// that read it, and one call applies them together (q, k and v; gate and up).
//
// Every output is the dot product of one weight row and one input row, summed in an order that
// depends on the weight alone: never on the other rows of the batch, the number of threads or how
// the loop was cut. That keeps a request's bits the same alone and in company.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "engine/cpu/thread_pool.h"
#include "engine/tensor.h"

namespace dsctl::engine {

/// A weight in the form in which its kernels read it. Immutable, shared by threads.
class LinearWeight {
 public:
  virtual ~LinearWeight() = default;
  virtual int64_t n_rows() const = 0;  // outputs
  virtual int64_t n_cols() const = 0;  // inputs
  /// Memory held besides the model file's mapping: 0 when the weight is used where it lies.
  virtual size_t owned_bytes() const = 0;
};

/// Rows of input in the forms that kernels want (f32, quantised in blocks of 32 or 256, ...), with
/// memory for the largest step allocated once. A form is made when it is first asked for. Each
/// assign replaces what was there, as one group of rows; it reads its arguments only during the
/// call.
class LinearInput {
 public:
  virtual ~LinearInput() = default;
  /// The rows of `x` as they are.
  virtual void assign(const Rows& x, ThreadPool& pool) = 0;
  /// rmsnorm(x): x / sqrt(mean(x^2) + eps) * weight, `weight` (n_cols) f32.
  virtual void assign_rmsnorm(const Rows& x, const float* weight, float eps, ThreadPool& pool) = 0;
  /// activation(gate) * up, element by element.
  virtual void assign_gated(const Rows& gate, const Rows& up, Activation activation,
                            ThreadPool& pool) = 0;
  /// Of another input (made by the same set) the rows `row_idx`.
  virtual void assign_rows(const LinearInput& from, std::span<const int32_t> row_idx,
                           ThreadPool& pool) = 0;
  /// Cuts the assigned rows into groups, [starts[i], starts[i + 1]), each for weights of its own.
  virtual void group(std::span<const int32_t> starts) = 0;
};

/// One weight of a call and where its outputs go: y (n_tokens, weight.n_rows), rows y_stride floats
/// apart. `bias` (weight.n_rows) is added when it is not null. Only the rows of one group take
/// part; they lie in y where they lie in the input.
struct LinearOutput {
  const LinearWeight* weight = nullptr;
  const float* bias = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;
  int group = 0;
};

// The reference: each row of the weight is dequantised to f32 where it lies and multiplied with the
// f32 rows of the input.
std::unique_ptr<LinearWeight> make_reference_weight(const MatrixView& matrix);
std::unique_ptr<LinearInput> make_reference_input(int max_tokens, int64_t max_cols, int n_threads);
/// `input` and the weights are those of the two functions above.
void linear_reference(LinearInput& input, std::span<const LinearOutput> outputs, ThreadPool& pool);

/// The reference's dot product: 16 partial sums, element i in partial i % 16, then added pairwise.
float dot(const float* a, const float* b, int64_t n);

}  // namespace dsctl::engine
