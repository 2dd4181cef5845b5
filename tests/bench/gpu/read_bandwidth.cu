#include "tests/bench/gpu/read_bandwidth.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

namespace {

#define CHECK_CUDA(call)                                                                    \
  do {                                                                                      \
    const cudaError_t status_ = (call);                                                     \
    if (status_ != cudaSuccess) {                                                           \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(status_)); \
      std::exit(1);                                                                         \
    }                                                                                       \
  } while (0)

constexpr size_t kWords = (size_t{2} << 30) / sizeof(uint4);

__global__ void fill_kernel(uint4* words) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < kWords;
       i += stride) {
    const auto bits = static_cast<uint32_t>(i) * 2654435761u;
    words[i] = make_uint4(bits, bits ^ 0x9e3779b9u, ~bits, bits * 31u);
  }
}

__global__ void read_kernel(const uint4* words, uint32_t* out) {
  uint32_t sum = 0;
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < kWords;
       i += stride) {
    const uint4 word = __ldcs(words + i);
    sum += word.x ^ word.y ^ word.z ^ word.w;
  }
  if (sum == 12345) *out = sum;
}

}  // namespace

double read_bandwidth_gb_s() {
  uint4* words = nullptr;
  uint32_t* out = nullptr;
  CHECK_CUDA(cudaMalloc(&words, kWords * sizeof(uint4)));
  CHECK_CUDA(cudaMalloc(&out, sizeof(uint32_t)));
  fill_kernel<<<1056, 512>>>(words);
  cudaEvent_t begin;
  cudaEvent_t end;
  CHECK_CUDA(cudaEventCreate(&begin));
  CHECK_CUDA(cudaEventCreate(&end));
  double best = 0.0;
  for (const int n_blocks : {528, 1056, 2112}) {
    for (int run = 0; run < 4; ++run) {
      CHECK_CUDA(cudaEventRecord(begin));
      read_kernel<<<static_cast<unsigned>(n_blocks), 1024>>>(words, out);
      CHECK_CUDA(cudaEventRecord(end));
      CHECK_CUDA(cudaEventSynchronize(end));
      float ms = 0.0f;
      CHECK_CUDA(cudaEventElapsedTime(&ms, begin, end));
      best = std::max(best, kWords * sizeof(uint4) / static_cast<double>(ms) / 1e6);
    }
  }
  CHECK_CUDA(cudaEventDestroy(begin));
  CHECK_CUDA(cudaEventDestroy(end));
  CHECK_CUDA(cudaFree(words));
  CHECK_CUDA(cudaFree(out));
  return best;
}
