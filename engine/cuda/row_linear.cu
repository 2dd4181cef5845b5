// Products with weights as the file has them, in f32: plain floats at any speed worth having, and
// every rare type correctly. CPU twin: engine/cpu/linear.cpp.
#include "engine/cuda/formats.cuh"
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.cuh"

namespace dsctl::engine::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;
constexpr int kTokens = 8;  // of one block: weights are read once for so many

/// Sums over the lanes and stores one output of each token.
__device__ __forceinline__ void finish(const RowLinearArgs& args, int row, int first_token,
                                       const float (&sums)[kTokens]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int t = 0; t < kTokens; ++t) {
    if (first_token + t >= args.n_tokens) break;
    float sum = warp_sum(sums[t]);
    if (lane != 0) continue;
    if (args.output.bias != nullptr) sum += args.output.bias[row];
    float* out = args.output.out + (first_token + t) * args.output.stride + row;
    *out = args.output.add ? *out + sum : sum;
  }
}

/// A warp is a row, a lane takes the row's blocks in turn and dequantises each into registers or
/// local memory.
template <typename Format>
__global__ void __launch_bounds__(kThreads) block_rows_kernel(RowLinearArgs args) {
  using Block = typename Format::Block;
  constexpr int kElems = Format::kBlockElems;
  allow_next_kernel();
  wait_for_previous_kernel();
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  if (row >= args.n_rows) return;
  const auto* blocks = reinterpret_cast<const Block*>(args.weights + row * args.row_bytes);
  const int n_blocks = args.n_cols / kElems;
  float sums[kTokens] = {};
  for (int b = static_cast<int>(threadIdx.x) % 32; b < n_blocks; b += 32) {
    float weights[kElems];
    dequantize_block<Format>(blocks[b], *args.grids, weights);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (first_token + t >= args.n_tokens) break;
      const float* x =
          args.input + (first_token + t) * args.input_stride + static_cast<int64_t>(b) * kElems;
      float sum = sums[t];
      for (int i = 0; i < kElems; ++i)
        sum = fmaf(weights[i], x[i], sum);
      sums[t] = sum;
    }
  }
  finish(args, row, first_token, sums);
}

/// N values of 16 bytes of weights.
template <typename Format>
struct Chunk {
  static constexpr int kValues = 16 / static_cast<int>(sizeof(typename Format::Block));
  float values[kValues];

  __device__ __forceinline__ explicit Chunk(const uint4& bits) {
    const uint32_t words[4] = {bits.x, bits.y, bits.z, bits.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (Format::kDType == gguf::DType::F32) {
        values[i] = gguf::float_from_bits(words[i]);
      } else if constexpr (Format::kDType == gguf::DType::F16) {
        values[2 * i] = half_value(words[i] & 0xffffu);
        values[2 * i + 1] = half_value(words[i] >> 16);
      } else {
        values[2 * i] = gguf::float_from_bits(words[i] << 16);
        values[2 * i + 1] = gguf::float_from_bits(words[i] & 0xffff0000u);
      }
    }
  }
};

/// The same for F32, F16 and BF16, whose rows begin at 16 bytes: a lane reads 16 bytes at a time,
/// the row's last values one by one.
template <typename Format>
__global__ void __launch_bounds__(kThreads) float_rows_kernel(RowLinearArgs args) {
  using Block = typename Format::Block;
  constexpr int kValues = Chunk<Format>::kValues;
  allow_next_kernel();
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  const bool exists = row < args.n_rows;
  const std::byte* weights = args.weights + (exists ? row : 0) * args.row_bytes;
  const auto* chunks = reinterpret_cast<const uint4*>(weights);
  const int n_chunks = args.n_cols / kValues;
  uint4 bits = make_uint4(0, 0, 0, 0);
  if (lane < n_chunks) bits = load_streaming(chunks + lane);
  wait_for_previous_kernel();
  if (!exists) return;
  float sums[kTokens] = {};
  for (int c = lane; c < n_chunks; c += 32) {
    uint4 next = make_uint4(0, 0, 0, 0);
    if (c + 32 < n_chunks) next = load_streaming(chunks + c + 32);
    const Chunk<Format> chunk(bits);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (first_token + t >= args.n_tokens) break;
      const float* x =
          args.input + (first_token + t) * args.input_stride + static_cast<int64_t>(c) * kValues;
#pragma unroll
      for (int i = 0; i < kValues; i += 4) {
        const float4 four = *reinterpret_cast<const float4*>(x + i);
        sums[t] = fmaf(chunk.values[i], four.x, sums[t]);
        sums[t] = fmaf(chunk.values[i + 1], four.y, sums[t]);
        sums[t] = fmaf(chunk.values[i + 2], four.z, sums[t]);
        sums[t] = fmaf(chunk.values[i + 3], four.w, sums[t]);
      }
    }
    bits = next;
  }
  const auto* values = reinterpret_cast<const Block*>(weights);
  const int column = n_chunks * kValues + lane;
  if (column < args.n_cols) {
    float weight = 0.0f;
    Format::dequantize(values[column], &weight);
#pragma unroll
    for (int t = 0; t < kTokens; ++t) {
      if (first_token + t >= args.n_tokens) break;
      sums[t] = fmaf(weight, args.input[(first_token + t) * args.input_stride + column], sums[t]);
    }
  }
  finish(args, row, first_token, sums);
}

}  // namespace

void row_linear(Stream& stream, const RowLinearArgs& args) {
  const dim3 grid(static_cast<unsigned>((args.n_rows + kWarps - 1) / kWarps),
                  static_cast<unsigned>((args.n_tokens + kTokens - 1) / kTokens));
  switch (args.dtype) {
    case gguf::DType::F32:
      stream.launch("row_linear F32", float_rows_kernel<gguf::F32>, grid, kThreads, 0, args);
      return;
    case gguf::DType::F16:
      stream.launch("row_linear F16", float_rows_kernel<gguf::F16>, grid, kThreads, 0, args);
      return;
    case gguf::DType::BF16:
      stream.launch("row_linear BF16", float_rows_kernel<gguf::BF16>, grid, kThreads, 0, args);
      return;
#define DSCTL_ROWS(Format)                                                                   \
  case gguf::DType::Format:                                                                  \
    stream.launch("row_linear " #Format, block_rows_kernel<gguf::Format>, grid, kThreads, 0, \
                  args);                                                                     \
    return;
      DSCTL_ROWS(F64)
      DSCTL_ROWS(I8)
      DSCTL_ROWS(I16)
      DSCTL_ROWS(I32)
      DSCTL_ROWS(I64)
      DSCTL_BLOCK_FORMATS(DSCTL_ROWS)
#undef DSCTL_ROWS
  }
}

}  // namespace dsctl::engine::cuda
