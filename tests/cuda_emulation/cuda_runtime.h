// The part of CUDA's runtime that engine/cuda uses, on the host: memory is the host's, a stream
// runs at once, a graph repeats its launches with the arguments of their capture. See emulation.h.
#pragma once

#define DSCTL_CUDA_EMULATION 1

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <tuple>
#include <utility>
#include <vector>

#include "emulation.h"
#include "gguf/quants/half.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__

// NOLINTBEGIN: names are CUDA's.
inline const emulation::Index& threadIdx = emulation::position().thread;
inline const emulation::Index& blockIdx = emulation::position().block;
inline const emulation::Index& blockDim = emulation::position().block_size;
inline const emulation::Index& gridDim = emulation::position().grid_size;

struct alignas(8) uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct dim3 {
  unsigned x = 1, y = 1, z = 1;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
inline uint2 make_uint2(uint32_t x, uint32_t y) {
  return {x, y};
}
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
  return {x, y, z, w};
}
inline float2 make_float2(float x, float y) {
  return {x, y};
}
inline float4 make_float4(float x, float y, float z, float w) {
  return {x, y, z, w};
}

using std::max;
using std::min;

inline void __syncthreads() {
  emulation::sync_threads();
}
inline void __syncwarp(uint32_t = 0xffffffffu) {
  emulation::sync_warp();
}
template <typename T>
T __shfl_xor_sync(uint32_t, T value, int mask) {
  return emulation::shuffle(value, emulation::lane() ^ mask);
}
template <typename T>
T __shfl_sync(uint32_t, T value, int from) {
  return emulation::shuffle(value, from);
}
inline uint32_t __funnelshift_r(uint32_t low, uint32_t high, uint32_t shift) {
  return static_cast<uint32_t>(((uint64_t{high} << 32) | low) >> (shift & 31));
}

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorNoDevice = 100,
  cudaErrorIllegalAddress = 700,
};

struct EmulatedGraph {
  std::vector<std::function<void()>> nodes;
};
struct EmulatedStream {
  EmulatedGraph* capture = nullptr;
};
using cudaStream_t = EmulatedStream*;
using cudaGraph_t = EmulatedGraph*;
using cudaGraphExec_t = EmulatedGraph*;
using cudaEvent_t = int*;

enum cudaMemcpyKind { cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice };
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal };
enum cudaLaunchAttributeID { cudaLaunchAttributeProgrammaticStreamSerialization };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2, cudaHostAllocDefault = 0 };
union cudaLaunchAttributeValue {
  int programmaticStreamSerializationAllowed;
};
struct cudaLaunchAttribute {
  cudaLaunchAttributeID id;
  cudaLaunchAttributeValue val;
};
struct cudaLaunchConfig_t {
  dim3 gridDim;
  dim3 blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
  cudaLaunchAttribute* attrs = nullptr;
  unsigned numAttrs = 0;
};
struct cudaDeviceProp {
  char name[256] = "emulated device";
  int major = 9;
  int minor = 0;
  int multiProcessorCount = 4;
  size_t totalGlobalMem = size_t{1} << 32;
};

namespace emulation {
cudaError_t status();  // counts a call
}  // namespace emulation

inline const char* cudaGetErrorString(cudaError_t status) {
  switch (status) {
    case cudaSuccess:
      return "no error";
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    default:
      return "an error";
  }
}
inline cudaError_t cudaGetLastError() {
  return cudaSuccess;
}
inline cudaError_t cudaSetDevice(int) {
  return emulation::status();
}
inline cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {};
  return emulation::status();
}
inline cudaError_t cudaMalloc(void** pointer, size_t n_bytes) {
  if (n_bytes > (size_t{1} << 33)) return cudaErrorMemoryAllocation;
  *pointer = std::aligned_alloc(256, (n_bytes + 255) / 256 * 256);
  // NaN as f32, f16 and bf16: what is read before it is written shows.
  std::memset(*pointer, 0xff, n_bytes);
  return emulation::status();
}
inline cudaError_t cudaFree(void* pointer) {
  std::free(pointer);
  return cudaSuccess;
}
inline cudaError_t cudaHostAlloc(void** pointer, size_t n_bytes, unsigned) {
  return cudaMalloc(pointer, n_bytes);
}
inline cudaError_t cudaFreeHost(void* pointer) {
  return cudaFree(pointer);
}
inline cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new EmulatedStream;
  return emulation::status();
}
inline cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  delete stream;
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t) {
  return emulation::status();
}
inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new int(0);
  return emulation::status();
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) {
  return emulation::status();
}
inline cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t, cudaEvent_t) {
  *milliseconds = 1.0f;
  return emulation::status();
}
inline cudaError_t cudaEventSynchronize(cudaEvent_t) {
  return emulation::status();
}
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n_bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  if (stream->capture) {
    stream->capture->nodes.push_back([=] { std::memcpy(to, from, n_bytes); });
  } else {
    std::memcpy(to, from, n_bytes);
  }
  return emulation::status();
}
inline cudaError_t cudaMemsetAsync(void* to, int value, size_t n_bytes, cudaStream_t stream) {
  if (stream->capture) {
    stream->capture->nodes.push_back([=] { std::memset(to, value, n_bytes); });
  } else {
    std::memset(to, value, n_bytes);
  }
  return emulation::status();
}
inline cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  stream->capture = new EmulatedGraph;
  return emulation::status();
}
inline cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = stream->capture;
  stream->capture = nullptr;
  return emulation::status();
}
inline cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned) {
  *exec = new EmulatedGraph(*graph);
  return emulation::status();
}
inline cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
inline cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}
inline cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t) {
  for (const auto& node : exec->nodes)
    node();
  return emulation::status();
}
template <typename Kernel>
cudaError_t cudaFuncSetAttribute(Kernel*, cudaFuncAttribute, int) {
  return emulation::status();
}
template <typename... Params, typename... Args>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params...),
                               Args&&... args) {
  const dim3 grid = config->gridDim;
  const dim3 block = config->blockDim;
  const size_t shared_bytes = config->dynamicSmemBytes;
  // The limits of compute capability 9.0.
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535 ||
      block.x * block.y * block.z > 1024 || shared_bytes > 227 * 1024) {
    return cudaErrorInvalidValue;
  }
  std::tuple<Params...> values(std::forward<Args>(args)...);
  auto node = [=] {
    emulation::run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, shared_bytes,
                        [&] { std::apply(kernel, values); });
  };
  if (config->stream->capture) {
    config->stream->capture->nodes.push_back(node);
  } else {
    node();
  }
  return emulation::status();
}
// NOLINTEND

namespace dsctl::engine::cuda {

// The instructions of engine/cuda/ptx.cuh.

inline void allow_next_kernel() {}
inline void wait_for_previous_kernel() {}
template <typename T>
T load_streaming(const T* address) {
  return *address;
}
inline float half_value(uint32_t bits) {
  return gguf::half_to_float(static_cast<uint16_t>(bits));
}
inline uint16_t half_bits(float value) {
  return gguf::float_to_half(value);
}

namespace emulated {

/// C += A B for one k-step of 16 columns of A, from the fragments of all lanes as PTX lays them out
/// for m16n8 with 8-bit operands.
struct Fragments {
  uint32_t a[4];
  uint32_t b[2];
};
template <typename AType>
inline void multiply_add(int (&c)[4], const Fragments& own, int n_halves) {
  const auto* all = ::emulation::exchange(&own, sizeof(own));
  const int row = ::emulation::lane() >> 2;
  const int first_col = 2 * (::emulation::lane() & 3);
  // Two rows of A and two columns of B, 16 bytes for each half, word k / 4 from lane (., k / 4).
  AType a[2][32];
  int8_t b[2][32];
  for (int word = 0; word < 4; ++word) {
    for (int i = 0; i < 2; ++i) {
      Fragments of_row;
      Fragments of_col;
      std::memcpy(&of_row, all[row * 4 + word], sizeof(of_row));
      std::memcpy(&of_col, all[(first_col + i) * 4 + word], sizeof(of_col));
      for (int half = 0; half < 2; ++half) {
        std::memcpy(a[i] + half * 16 + word * 4, &of_row.a[i + 2 * half], 4);
        std::memcpy(b[i] + half * 16 + word * 4, &of_col.b[half], 4);
      }
    }
  }
  for (int i = 0; i < 4; ++i) {
    int sum = 0;
    for (int k = 0; k < 16 * n_halves; ++k)
      sum += static_cast<int>(a[i >> 1][k]) * static_cast<int>(b[i & 1][k]);
    c[i] += sum;
  }
  ::emulation::end_exchange();
}

}  // namespace emulated

inline void mma_u8_k32(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulated::multiply_add<uint8_t>(c, {{a[0], a[1], a[2], a[3]}, {b0, b1}}, 2);
}
inline void mma_s8_k32(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  emulated::multiply_add<int8_t>(c, {{a[0], a[1], a[2], a[3]}, {b0, b1}}, 2);
}
inline void mma_u8_k16(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  emulated::multiply_add<uint8_t>(c, {{a0, a1, 0, 0}, {b0, 0}}, 1);
}

}  // namespace dsctl::engine::cuda
