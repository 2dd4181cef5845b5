// The inputs of a product: normalised, gated or as they are, in f32 or as 16-bit codes. And the sum
// of a branch into the residual stream.
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.cuh"

namespace dsctl::engine::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kColsPerBlock = 4 * kThreads;

/// 1 / sqrt(mean(x^2) + eps), by the whole block.
__device__ float inverse_rms(const float* x, int n_cols, float eps, float* partial) {
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < n_cols; i += kThreads)
    sum = fmaf(x[i], x[i], sum);
  sum = block_sum<kWarps>(sum, partial);
  return 1.0f / sqrtf(sum / static_cast<float>(n_cols) + eps);
}

__device__ float activate(float x, Activation activation) {
  if (activation == Activation::kSilu) return x / (1.0f + expf(-x));
  constexpr float kSqrt2OverPi = 0.79788456080286535588f;
  return 0.5f * x * (1.0f + tanhf(kSqrt2OverPi * x * (1.0f + 0.044715f * x * x)));
}

/// The larger of two, or NaN when one is: fmaxf would drop it.
__device__ __forceinline__ float max_or_nan(float a, float b) {
  return a > b || a != a ? a : b;
}

/// Writes 128 columns of a token as 16-bit codes, four of each lane. A step's 32 columns are 8
/// lanes, a half of it 4. The high bytes are those of the CPU's fast kernels: max |x| / 127 is one
/// of their units. What is no number makes the step's scale one, and so every output that reads it.
__device__ void quantize(const float (&values)[4], int first_col, int n_tile_cols,
                         ActivationTile* tiles) {
  float largest = max_or_nan(max_or_nan(fabsf(values[0]), fabsf(values[1])),
                             max_or_nan(fabsf(values[2]), fabsf(values[3])));
#pragma unroll
  for (int mask = 1; mask < 8; mask *= 2)
    largest = max_or_nan(largest, __shfl_xor_sync(kAllLanes, largest, mask));
  const float unit = largest / 127.0f;
  // Where the inverse is beyond f32, all values round to zero codes; their size is below 1e-36.
  const float inverse = unit > 1e-37f ? 1.0f / unit : 0.0f;
  uint32_t high_word = 0;
  uint32_t low_word = 0;
  int high_sum = 0;
  int low_sum = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float scaled = values[i] * inverse;
    if (scaled != scaled) scaled = 0.0f;
    const float rounded = rintf(scaled);
    const int high = static_cast<int>(rounded);
    const int low = min(static_cast<int>(rintf((scaled - rounded) * 256.0f)), 127);
    high_word |= (static_cast<uint32_t>(high) & 255u) << (8 * i);
    low_word |= (static_cast<uint32_t>(low) & 255u) << (8 * i);
    high_sum += high;
    low_sum += low;
  }
#pragma unroll
  for (int mask = 1; mask < 4; mask *= 2) {
    high_sum += __shfl_xor_sync(kAllLanes, high_sum, mask);
    low_sum += __shfl_xor_sync(kAllLanes, low_sum, mask);
  }
  if (first_col >= n_tile_cols) return;
  ActivationTile& tile = tiles[first_col / kTileCols];
  const int column = first_col % kTileCols;
  tile.high[activation_word(column)] = high_word;
  tile.low[activation_word(column)] = low_word;
  const int step = column / kStepCols;
  const int half = column / 16 % 2;
  if (column % 16 == 0) {
    tile.steps[step].high_sums[half] = static_cast<int16_t>(high_sum);
    tile.low_sums[step].sums[half] = static_cast<int16_t>(low_sum);
  }
  if (column % kStepCols == 0) tile.steps[step].scale = unit / 256.0f;
}

/// A block makes 1024 columns of one token; each block of a normalised row sums up the whole row.
template <InputKind kKind>
__global__ void __launch_bounds__(kThreads) input_kernel(InputArgs args) {
  __shared__ float partial[kWarps];
  allow_next_kernel();
  wait_for_previous_kernel();
  const int token = static_cast<int>(blockIdx.y);
  const float* x = args.x + token * args.x_stride;
  const float* up = kKind == InputKind::kGated ? args.up + token * args.x_stride : nullptr;
  const float factor =
      kKind == InputKind::kNorm ? inverse_rms(x, args.n_cols, args.eps, partial) : 1.0f;
  const int first_col =
      static_cast<int>(blockIdx.x) * kColsPerBlock + static_cast<int>(threadIdx.x) * 4;
  float values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int column = first_col + i;
    values[i] = 0.0f;
    if (column >= args.n_cols) continue;
    if constexpr (kKind == InputKind::kNorm) {
      values[i] = x[column] * factor * args.norm[column];
    } else if constexpr (kKind == InputKind::kGated) {
      values[i] = activate(x[column], args.activation) * up[column];
    } else {
      values[i] = x[column];
    }
    if (args.values != nullptr) args.values[token * args.values_stride + column] = values[i];
  }
  if (args.tiles == nullptr) return;
  // The last tile is written whole: its missing steps are zeros.
  const int n_tile_cols = (args.n_cols + kTileCols - 1) / kTileCols * kTileCols;
  quantize(values, first_col, n_tile_cols, args.tiles + token * args.tiles_stride);
}

__global__ void __launch_bounds__(kThreads) add_kernel(AddArgs args) {
  __shared__ float partial[kWarps];
  allow_next_kernel();
  wait_for_previous_kernel();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * args.n_cols;
  float sum = 0.0f;
  for (int i = static_cast<int>(threadIdx.x); i < args.n_cols; i += kThreads) {
    const float y = args.y[row + i] + (args.bias != nullptr ? args.bias[i] : 0.0f);
    sum = fmaf(y, y, sum);
  }
  sum = block_sum<kWarps>(sum, partial);
  const float factor = 1.0f / sqrtf(sum / static_cast<float>(args.n_cols) + args.eps);
  for (int i = static_cast<int>(threadIdx.x); i < args.n_cols; i += kThreads) {
    const float y = args.y[row + i] + (args.bias != nullptr ? args.bias[i] : 0.0f);
    args.x[row + i] += args.norm != nullptr ? y * factor * args.norm[i] : y;
  }
}

}  // namespace

void prepare_input(Stream& stream, const InputArgs& args) {
  const int n_cols = (args.n_cols + kTileCols - 1) / kTileCols * kTileCols;
  const dim3 grid(static_cast<unsigned>((n_cols + kColsPerBlock - 1) / kColsPerBlock),
                  static_cast<unsigned>(args.n_tokens));
  switch (args.kind) {
    case InputKind::kPlain:
      stream.launch("input", input_kernel<InputKind::kPlain>, grid, kThreads, 0, args);
      return;
    case InputKind::kNorm:
      stream.launch("norm_input", input_kernel<InputKind::kNorm>, grid, kThreads, 0, args);
      return;
    case InputKind::kGated:
      stream.launch("gated_input", input_kernel<InputKind::kGated>, grid, kThreads, 0, args);
      return;
  }
}

void add_branch(Stream& stream, const AddArgs& args) {
  stream.launch("add_branch", add_kernel, dim3(static_cast<unsigned>(args.n_tokens)), kThreads, 0,
                args);
}

}  // namespace dsctl::engine::cuda
