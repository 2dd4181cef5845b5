// What happens to rows and logits at a step's end.
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.cuh"

namespace dsctl::engine::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kArgMaxThreads = 1024;

/// A thread is a column: it moves its rows in ascending order, so that none is written before it
/// was read.
__global__ void gather_kernel(float* x, int64_t stride, int n_cols, const int32_t* rows,
                              int n_rows) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int column = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (column >= n_cols) return;
  for (int i = 0; i < n_rows; ++i)
    x[i * stride + column] = x[rows[i] * stride + column];
}

__global__ void soft_cap_kernel(float* logits, int64_t n_values, float cap) {
  allow_next_kernel();
  wait_for_previous_kernel();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n_values) logits[i] = cap * tanhf(logits[i] / cap);
}

__device__ __forceinline__ Best better(const Best& a, const Best& b) {
  // A row that is no row of numbers stays so.
  if (a.token < 0 || b.token < 0) return a.token < 0 ? a : b;
  if (b.logit > a.logit || (b.logit == a.logit && b.token < a.token)) return b;
  return a;
}

/// A block is a row.
__global__ void __launch_bounds__(kArgMaxThreads)
    arg_max_kernel(const float* logits, int n_cols, Best* best) {
  __shared__ Best partial[kArgMaxThreads / 32];
  allow_next_kernel();
  wait_for_previous_kernel();
  const float* row = logits + static_cast<int64_t>(blockIdx.x) * n_cols;
  Best own{0x7fffffff, -INFINITY};
  for (int i = static_cast<int>(threadIdx.x); i < n_cols; i += kArgMaxThreads) {
    const float logit = row[i];
    // Neither NaN nor infinite.
    const bool is_number = fabsf(logit) < INFINITY;
    own = better(own, is_number ? Best{i, logit} : Best{-1, logit});
  }
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) {
    const Best other{__shfl_xor_sync(kAllLanes, own.token, mask),
                     __shfl_xor_sync(kAllLanes, own.logit, mask)};
    own = better(own, other);
  }
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = own;
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < kArgMaxThreads / 32; ++i)
    own = better(own, partial[i]);
  best[blockIdx.x] = own;
}

}  // namespace

void gather_rows(Stream& stream, float* x, int64_t stride, int n_cols, const int32_t* rows,
                 int n_rows) {
  stream.launch("gather_rows", gather_kernel,
                dim3(static_cast<unsigned>((n_cols + kThreads - 1) / kThreads)), kThreads, 0, x,
                stride, n_cols, rows, n_rows);
}

void soft_cap(Stream& stream, float* logits, int64_t n_values, float cap) {
  stream.launch("soft_cap", soft_cap_kernel,
                dim3(static_cast<unsigned>((n_values + kThreads - 1) / kThreads)), kThreads, 0,
                logits, n_values, cap);
}

void arg_max(Stream& stream, const float* logits, int n_rows, int n_cols, Best* best) {
  stream.launch("arg_max", arg_max_kernel, dim3(static_cast<unsigned>(n_rows)), kArgMaxThreads, 0,
                logits, n_cols, best);
}

}  // namespace dsctl::engine::cuda
