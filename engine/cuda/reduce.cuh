// Sums and maxima over the threads of a warp or a block, in an order that never changes.
#pragma once

#include "engine/cuda/ptx.cuh"

namespace dsctl::engine::cuda {

constexpr uint32_t kAllLanes = 0xffffffffu;

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    value += __shfl_xor_sync(kAllLanes, value, mask);
  return value;
}

__device__ __forceinline__ float warp_max(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2)
    value = fmaxf(value, __shfl_xor_sync(kAllLanes, value, mask));
  return value;
}

/// The sum over a block of n_warps whole warps, in every thread. `partial` has n_warps floats of
/// shared memory; the caller's earlier use of it must have ended.
template <int n_warps>
__device__ __forceinline__ float block_sum(float value, float* partial) {
  const int warp = static_cast<int>(threadIdx.x) / 32;
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) partial[warp] = value;
  __syncthreads();
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < n_warps; ++i)
    sum += partial[i];
  return sum;
}

}  // namespace dsctl::engine::cuda
