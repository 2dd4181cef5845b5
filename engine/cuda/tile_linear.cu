// Products with tiled weights on the integer tensor cores. Both kernels multiply codes exactly and
// add the steps' products up in the same order, so a token has the same bits in either.
#include "engine/cuda/kernels.h"
#include "engine/cuda/reduce.cuh"

namespace dsctl::engine::cuda {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = 32 * kWarps;

/// A lane's share of a tile's codes, loaded early.
template <typename Tile>
struct Codes {
  static constexpr int kWords = Tile::kBits == 8 ? kTileSteps : kTileSteps / 2;
  static constexpr int kHighWords = Tile::kHighBytes / 512;
  uint4 codes[kWords];
  uint4 high[kHighWords > 0 ? kHighWords : 1];

  __device__ __forceinline__ void load(const std::byte* tile, int n_steps, int lane) {
    const auto* words = reinterpret_cast<const uint4*>(tile) + lane;
    constexpr int kStepsPerWord = kTileSteps / kWords;
#pragma unroll
    for (int i = 0; i < kWords; ++i) {
      codes[i] =
          i * kStepsPerWord < n_steps ? load_streaming(words + i * 32) : make_uint4(0, 0, 0, 0);
    }
    if constexpr (kHighWords > 0) {
      words += Tile::code_bytes(n_steps) / 16;
#pragma unroll
      for (int i = 0; i < kHighWords; ++i)
        high[i] = load_streaming(words + i * 32);
    }
  }

  /// The A operand of a step. The high nibbles of 4-bit codes stay where they are, a factor of 16
  /// that divide_step takes out again.
  __device__ __forceinline__ void operand(int step, uint32_t (&a)[4]) const {
    if constexpr (Tile::kBits == 8) {
      a[0] = codes[step].x;
      a[1] = codes[step].y;
      a[2] = codes[step].z;
      a[3] = codes[step].w;
    } else {
      const uint4 q = codes[step / 2];
      const uint32_t words[4] = {q.x, q.y, q.z, q.w};
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        if constexpr (Tile::kBits == 4) {
          a[r] = words[r] & (step % 2 == 0 ? 0x0f0f0f0fu : 0xf0f0f0f0u);
        } else {
          a[r] = ((step % 2 == 0 ? words[r] : words[r] >> 4) & 0x0f0f0f0fu) | high_bits(step, r);
        }
      }
    }
  }

  __device__ __forceinline__ uint32_t high_bits(int step, int r) const {
    if constexpr (Tile::kBits == 5) {
      const uint32_t word = component(high[0], step / 2);
      // Bit r, or r + 4, of each byte becomes bit 4.
      return (step % 2 == 0 ? word << (4 - r) : word >> r) & 0x10101010u;
    } else {
      // Bits 2r and 2r + 1 become bits 4 and 5.
      const uint32_t word = component(high[step / 4 < kHighWords ? step / 4 : 0], step % 4);
      return (r < 2 ? word << (4 - 2 * r) : word >> (2 * r - 4)) & 0x30303030u;
    }
  }

  __device__ __forceinline__ static uint32_t component(const uint4& words, int i) {
    return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
  }
};

/// Integer products of one step with the high bytes of the inputs, or the low ones: of its 32
/// columns together, or for kSigned of each half.
template <typename Tile>
struct StepProducts {
  static constexpr bool kHalves = Tile::kScales == ScaleKind::kSigned;
  int c[kHalves ? 2 : 1][4];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int i = 0; i < (kHalves ? 2 : 1); ++i) {
#pragma unroll
      for (int k = 0; k < 4; ++k)
        c[i][k] = 0;
    }
  }

  __device__ __forceinline__ void multiply(const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    if constexpr (kHalves) {
      mma_u8_k16(c[0], a[0], a[1], b0);
      mma_u8_k16(c[1], a[2], a[3], b1);
    } else if constexpr (Tile::kBits == 8) {
      mma_s8_k32(c[0], a, b0, b1);
    } else {
      mma_u8_k32(c[0], a, b0, b1);
    }
  }
};

/// Products with the inputs' whole codes. Their largest is 31 * 32,639 * 32 (Q5_K), or 127 instead
/// of 31 (Q8_0); with the factor of 16 of 4-bit codes 240: far from 2^31.
template <typename Tile, bool kExact>
__device__ __forceinline__ StepProducts<Tile> join(const StepProducts<Tile>& high,
                                                   const StepProducts<Tile>& low) {
  StepProducts<Tile> result;
#pragma unroll
  for (int i = 0; i < (StepProducts<Tile>::kHalves ? 2 : 1); ++i) {
#pragma unroll
    for (int k = 0; k < 4; ++k)
      result.c[i][k] = high.c[i][k] * 256 + (kExact ? low.c[i][k] : 0);
  }
  return result;
}

/// One row's scales of a tile.
struct RowScales {
  uint4 first;   // kD, kDM: d; kSixBit: all; kSigned: the 16 scales
  uint4 second;  // kDM: m; kSigned: d in x
};

template <typename Tile>
__device__ __forceinline__ RowScales load_scales(const std::byte* tile, int n_steps, int row) {
  const std::byte* scales = tile + Tile::code_bytes(n_steps) + Tile::kHighBytes;
  RowScales result;
  result.first = load_streaming(reinterpret_cast<const uint4*>(scales) + row);
  result.second = make_uint4(0, 0, 0, 0);
  if constexpr (Tile::kScales == ScaleKind::kDM) {
    result.second = load_streaming(reinterpret_cast<const uint4*>(scales) + kPanelRows + row);
  } else if constexpr (Tile::kScales == ScaleKind::kSigned) {
    result.second.x = reinterpret_cast<const uint16_t*>(scales + 256)[row];
  }
  return result;
}

__device__ __forceinline__ uint32_t pick(const uint4& words, int i) {
  return i == 0 ? words.x : i == 1 ? words.y : i == 2 ? words.z : words.w;
}

/// The scales of steps 2 * pair and 2 * pair + 1 of one row, as floats and small integers.
struct PairScales {
  float d[2];
  float m[2];       // kDM: m; kSixBit: dmin
  int scale[2][2];  // kSixBit: [step][0]; kSigned: [step][half]
  int min[2];       // kSixBit
};

template <typename Tile>
__device__ __forceinline__ PairScales pair_scales(const RowScales& row, int pair) {
  PairScales result{};
  if constexpr (Tile::kScales == ScaleKind::kSixBit) {
    result.d[0] = half_value(row.first.x & 0xffffu);
    result.m[0] = half_value(row.first.x >> 16);
    const uint32_t low = pair <= 1 ? row.first.y : pair == 2 ? row.first.z : row.first.w;
    const uint32_t high = pair == 0 ? row.first.y : pair == 1 ? row.first.z : row.first.w;
    const uint32_t bits = __funnelshift_r(low, high, (24u * static_cast<uint32_t>(pair)) & 31u);
    result.scale[0][0] = static_cast<int>(bits & 63u);
    result.min[0] = static_cast<int>((bits >> 6) & 63u);
    result.scale[1][0] = static_cast<int>((bits >> 12) & 63u);
    result.min[1] = static_cast<int>((bits >> 18) & 63u);
  } else if constexpr (Tile::kScales == ScaleKind::kSigned) {
    result.d[0] = half_value(row.second.x);
    const uint32_t word = pick(row.first, pair);
#pragma unroll
    for (int i = 0; i < 4; ++i)
      result.scale[i / 2][i % 2] = static_cast<int8_t>(word >> (8 * i));
  } else {
    const uint32_t word = pick(row.first, pair);
    result.d[0] = half_value(word & 0xffffu);
    result.d[1] = half_value(word >> 16);
    if constexpr (Tile::kScales == ScaleKind::kDM) {
      const uint32_t mins = pick(row.second, pair);
      result.m[0] = half_value(mins & 0xffffu);
      result.m[1] = half_value(mins >> 16);
    }
  }
  return result;
}

/// Two steps of a token's activations.
struct PairActivations {
  float scale[2];
  int sum[2][2];  // [step][half]
};

template <bool kExact>
__device__ __forceinline__ PairActivations load_activations(const ActivationTile& tile, int pair) {
  const uint4 words = reinterpret_cast<const uint4*>(tile.steps)[pair];
  uint2 low = make_uint2(0, 0);
  if constexpr (kExact) low = reinterpret_cast<const uint2*>(tile.low_sums)[pair];
  const auto code_sum = [](uint32_t high_bits, uint32_t low_bits) {
    return static_cast<int>(static_cast<int16_t>(high_bits)) * 256 +
           static_cast<int>(static_cast<int16_t>(low_bits));
  };
  PairActivations result;
  result.scale[0] = gguf::float_from_bits(words.x);
  result.sum[0][0] = code_sum(words.y & 0xffffu, low.x & 0xffffu);
  result.sum[0][1] = code_sum(words.y >> 16, low.x >> 16);
  result.scale[1] = gguf::float_from_bits(words.z);
  result.sum[1][0] = code_sum(words.w & 0xffffu, low.y & 0xffffu);
  result.sum[1][1] = code_sum(words.w >> 16, low.y >> 16);
  return result;
}

/// sum + the products of two steps, even[] and odd[], with their scales. The one place where the
/// integers become floats.
template <typename Tile>
__device__ __forceinline__ float add_pair(float sum, const PairScales& scales,
                                          const PairActivations& x, const int (&even)[2],
                                          const int (&odd)[2]) {
#pragma unroll
  for (int step = 0; step < 2; ++step) {
    const int(&c)[2] = step == 0 ? even : odd;
    float value;
    if constexpr (Tile::kScales == ScaleKind::kSigned) {
      // Each at most 128 * 32 * 32,639 * 16, just below 2^31; their sum is not.
      const int first = scales.scale[step][0] * (c[0] - Tile::kOffset * x.sum[step][0]);
      const int second = scales.scale[step][1] * (c[1] - Tile::kOffset * x.sum[step][1]);
      value = scales.d[0] * (static_cast<float>(first) + static_cast<float>(second));
    } else {
      const int x_sum = x.sum[step][0] + x.sum[step][1];
      // The codes of an odd step of 4 bits are 16 times too large: exactly divisible.
      const int product = Tile::kBits == 4 && step == 1 ? c[0] >> 4 : c[0];
      if constexpr (Tile::kScales == ScaleKind::kSixBit) {
        // At most 63 * 31 * 32,639 * 32, below 2^31.
        value = fmaf(scales.d[0], static_cast<float>(scales.scale[step][0] * product),
                     -(scales.m[0] * static_cast<float>(scales.min[step] * x_sum)));
      } else if constexpr (Tile::kScales == ScaleKind::kDM) {
        value = fmaf(scales.d[step], static_cast<float>(product),
                     scales.m[step] * static_cast<float>(x_sum));
      } else {
        value = scales.d[step] * static_cast<float>(product - Tile::kOffset * x_sum);
      }
    }
    sum = fmaf(x.scale[step], value, sum);
  }
  return sum;
}

/// A part of the launch and a panel of it, for one block.
struct PanelOf {
  int part = 0;
  int panel = 0;
};

__device__ __forceinline__ PanelOf find_panel(const TileLinearArgs& args) {
  PanelOf found;
  found.panel = static_cast<int>(blockIdx.x);
  while (found.part + 1 < args.n_parts) {
    const int n_panels = (args.parts[found.part].n_rows + kPanelRows - 1) / kPanelRows;
    if (found.panel < n_panels) break;
    found.panel -= n_panels;
    ++found.part;
  }
  return found;
}

__device__ __forceinline__ void store_output(const TilePart& part, int row, int token,
                                             float value) {
  if (part.output.bias != nullptr) value += part.output.bias[row];
  float* out = part.output.out + token * part.output.stride + row;
  *out = part.output.add ? *out + value : value;
}

/// One token. A block is a panel; its warps take tiles in turn. Column s of B holds the activations
/// of step s alone, so that after eight multiplications C[row][s] is that step's product: lane
/// (g, j) has rows g and g + 8, steps 2j and 2j + 1. Reads each weight once.
template <typename Tile, bool kExact>
__device__ void one_token_panel(const TileLinearArgs& args, const TilePart& part, int panel,
                                float (*partial)[kPanelRows]) {
  const PanelShape shape{args.n_cols / kStepCols};
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group = lane / 4;
  const int j = lane % 4;
  const int n_tiles = shape.n_tiles();
  const std::byte* tiles = part.tiles + panel * shape.panel_bytes<Tile>();

  float sums[2] = {0.0f, 0.0f};
  Codes<Tile> codes;
  RowScales scales[2];
  const auto load = [&](int t, Codes<Tile>& to, RowScales(&to_scales)[2]) {
    const std::byte* tile = tiles + static_cast<int64_t>(t) * Tile::tile_bytes(kTileSteps);
    const int n_steps = shape.tile_steps(t);
    to.load(tile, n_steps, lane);
    to_scales[0] = load_scales<Tile>(tile, n_steps, group);
    to_scales[1] = load_scales<Tile>(tile, n_steps, group + 8);
  };
  if (warp < n_tiles) load(warp, codes, scales);
  wait_for_previous_kernel();
  for (int t = warp; t < n_tiles; t += kWarps) {
    Codes<Tile> next;
    RowScales next_scales[2];
    const bool more = t + kWarps < n_tiles;
    if (more) load(t + kWarps, next, next_scales);

    const ActivationTile& x = args.input[t];
    const uint2 b = *reinterpret_cast<const uint2*>(x.high + j * 16 + group * 2);
    uint2 low_b = make_uint2(0, 0);
    if constexpr (kExact) low_b = *reinterpret_cast<const uint2*>(x.low + j * 16 + group * 2);
    const PairActivations activations = load_activations<kExact>(x, j);
    StepProducts<Tile> high_products;
    StepProducts<Tile> low_products;
    high_products.clear();
    low_products.clear();
#pragma unroll
    for (int step = 0; step < kTileSteps; ++step) {
      uint32_t a[4];
      codes.operand(step, a);
      const bool own = group == step;
      high_products.multiply(a, own ? b.x : 0u, own ? b.y : 0u);
      if constexpr (kExact) low_products.multiply(a, own ? low_b.x : 0u, own ? low_b.y : 0u);
    }
    const StepProducts<Tile> products = join<Tile, kExact>(high_products, low_products);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      constexpr int kLast = StepProducts<Tile>::kHalves ? 1 : 0;
      const int even[2] = {products.c[0][2 * r], products.c[kLast][2 * r]};
      const int odd[2] = {products.c[0][2 * r + 1], products.c[kLast][2 * r + 1]};
      sums[r] = add_pair<Tile>(sums[r], pair_scales<Tile>(scales[r], j), activations, even, odd);
    }
    if (more) {
      codes = next;
      scales[0] = next_scales[0];
      scales[1] = next_scales[1];
    }
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    sums[r] += __shfl_xor_sync(kAllLanes, sums[r], 1);
    sums[r] += __shfl_xor_sync(kAllLanes, sums[r], 2);
    if (j == 0) partial[warp][group + 8 * r] = sums[r];
  }
  __syncthreads();
  const int row = static_cast<int>(threadIdx.x);
  if (row < kPanelRows && panel * kPanelRows + row < part.n_rows) {
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < kWarps; ++i)
      sum += partial[i][row];
    store_output(part, panel * kPanelRows + row, 0, sum);
  }
}

/// Several tokens, 8 for each column group of B. As above, but the columns of B are tokens: lane
/// (g, j) has rows g and g + 8 of tokens 2j and 2j + 1 and keeps a sum for each pair of steps, in
/// place of the other kernel's four lanes. Weights are read once for 8 * kGroups tokens.
template <typename Tile, int kGroups, bool kExact>
__device__ void many_token_panel(const TileLinearArgs& args, const TilePart& part, int panel,
                                 float* partial) {
  constexpr int kTokens = 8 * kGroups;
  const PanelShape shape{args.n_cols / kStepCols};
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int group = lane / 4;
  const int j = lane % 4;
  const int n_tiles = shape.n_tiles();
  const int first_token = static_cast<int>(blockIdx.y) * kTokens;
  const std::byte* tiles = part.tiles + panel * shape.panel_bytes<Tile>();

  float sums[kGroups][2][2][4] = {};  // [][row][token][pair]
  Codes<Tile> codes;
  RowScales scales[2];
  const auto load = [&](int t) {
    const std::byte* tile = tiles + static_cast<int64_t>(t) * Tile::tile_bytes(kTileSteps);
    const int n_steps = shape.tile_steps(t);
    codes.load(tile, n_steps, lane);
    scales[0] = load_scales<Tile>(tile, n_steps, group);
    scales[1] = load_scales<Tile>(tile, n_steps, group + 8);
  };
  if (warp < n_tiles) load(warp);
  wait_for_previous_kernel();
  for (int t = warp; t < n_tiles; t += kWarps) {
    if (t != warp) load(t);
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t even_a[4];
      uint32_t odd_a[4];
      codes.operand(2 * pair, even_a);
      codes.operand(2 * pair + 1, odd_a);
      const PairScales row_scales[2] = {pair_scales<Tile>(scales[0], pair),
                                        pair_scales<Tile>(scales[1], pair)};
#pragma unroll
      for (int n = 0; n < kGroups; ++n) {
        const int token = first_token + 8 * n + group;
        uint4 b = make_uint4(0, 0, 0, 0);
        uint4 low_b = make_uint4(0, 0, 0, 0);
        if (token < args.n_tokens) {
          const ActivationTile& x = args.input[token * args.input_stride + t];
          b = *reinterpret_cast<const uint4*>(x.high + j * 16 + pair * 4);
          if constexpr (kExact) low_b = *reinterpret_cast<const uint4*>(x.low + j * 16 + pair * 4);
        }
        StepProducts<Tile> high[2];
        StepProducts<Tile> low[2];
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          high[step].clear();
          low[step].clear();
        }
        high[0].multiply(even_a, b.x, b.y);
        high[1].multiply(odd_a, b.z, b.w);
        if constexpr (kExact) {
          low[0].multiply(even_a, low_b.x, low_b.y);
          low[1].multiply(odd_a, low_b.z, low_b.w);
        }
        const StepProducts<Tile> even_products = join<Tile, kExact>(high[0], low[0]);
        const StepProducts<Tile> odd_products = join<Tile, kExact>(high[1], low[1]);
#pragma unroll
        for (int u = 0; u < 2; ++u) {
          const int own_token = first_token + 8 * n + 2 * j + u;
          if (own_token >= args.n_tokens) continue;
          const PairActivations activations =
              load_activations<kExact>(args.input[own_token * args.input_stride + t], pair);
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            constexpr int kLast = StepProducts<Tile>::kHalves ? 1 : 0;
            const int even[2] = {even_products.c[0][2 * r + u], even_products.c[kLast][2 * r + u]};
            const int odd[2] = {odd_products.c[0][2 * r + u], odd_products.c[kLast][2 * r + u]};
            sums[n][r][u][pair] =
                add_pair<Tile>(sums[n][r][u][pair], row_scales[r], activations, even, odd);
          }
        }
      }
    }
  }
#pragma unroll
  for (int n = 0; n < kGroups; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const float(&s)[4] = sums[n][r][u];
        partial[(warp * kTokens + 8 * n + 2 * j + u) * kPanelRows + group + 8 * r] =
            (s[0] + s[1]) + (s[2] + s[3]);
      }
    }
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < kTokens * kPanelRows; i += kThreads) {
    const int row = panel * kPanelRows + i % kPanelRows;
    const int token = first_token + i / kPanelRows;
    if (row >= part.n_rows || token >= args.n_tokens) continue;
    float sum = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w)
      sum += partial[w * kTokens * kPanelRows + i];
    store_output(part, row, token, sum);
  }
}

/// The format of the block's part, for all blocks of a part the same.
#define DSCTL_FOR_TILE_FORMAT(dtype, CALL) \
  switch (dtype) {                         \
    case gguf::DType::Q4_0:                \
      CALL(Q4_0Tile);                      \
      break;                               \
    case gguf::DType::Q4_1:                \
      CALL(Q4_1Tile);                      \
      break;                               \
    case gguf::DType::Q5_0:                \
      CALL(Q5_0Tile);                      \
      break;                               \
    case gguf::DType::Q5_1:                \
      CALL(Q5_1Tile);                      \
      break;                               \
    case gguf::DType::Q8_0:                \
      CALL(Q8_0Tile);                      \
      break;                               \
    case gguf::DType::Q4_K:                \
      CALL(Q4_KTile);                      \
      break;                               \
    case gguf::DType::Q5_K:                \
      CALL(Q5_KTile);                      \
      break;                               \
    case gguf::DType::Q6_K:                \
      CALL(Q6_KTile);                      \
      break;                               \
    default:                               \
      break;                               \
  }

template <bool kExact>
__global__ void __launch_bounds__(kThreads, 2)
    one_token_kernel(const __grid_constant__ TileLinearArgs args) {
  __shared__ float partial[kWarps][kPanelRows];
  allow_next_kernel();
  const PanelOf own = find_panel(args);
  const TilePart& part = args.parts[own.part];
#define DSCTL_ONE_TOKEN(Tile) one_token_panel<Tile, kExact>(args, part, own.panel, partial)
  DSCTL_FOR_TILE_FORMAT(part.dtype, DSCTL_ONE_TOKEN)
#undef DSCTL_ONE_TOKEN
}

template <int kGroups, bool kExact>
__global__ void __launch_bounds__(kThreads)
    many_token_kernel(const __grid_constant__ TileLinearArgs args) {
  __shared__ float partial[kWarps * 8 * kGroups * kPanelRows];
  allow_next_kernel();
  const PanelOf own = find_panel(args);
  const TilePart& part = args.parts[own.part];
#define DSCTL_MANY_TOKENS(Tile) \
  many_token_panel<Tile, kGroups, kExact>(args, part, own.panel, partial)
  DSCTL_FOR_TILE_FORMAT(part.dtype, DSCTL_MANY_TOKENS)
#undef DSCTL_MANY_TOKENS
}

#undef DSCTL_FOR_TILE_FORMAT

template <bool kExact>
void launch_tile_linear(Stream& stream, const TileLinearArgs& args) {
  unsigned n_panels = 0;
  for (int i = 0; i < args.n_parts; ++i)
    n_panels += static_cast<unsigned>((args.parts[i].n_rows + kPanelRows - 1) / kPanelRows);
  const auto blocks_of = [&](int n_tokens_each) {
    return dim3(n_panels,
                static_cast<unsigned>((args.n_tokens + n_tokens_each - 1) / n_tokens_each));
  };
  if (args.n_tokens == 1) {
    stream.launch("tile_linear_1", one_token_kernel<kExact>, dim3(n_panels), kThreads, 0, args);
  } else if (args.n_tokens <= 8) {
    stream.launch("tile_linear_8", many_token_kernel<1, kExact>, blocks_of(8), kThreads, 0, args);
  } else if (args.n_tokens <= 16) {
    stream.launch("tile_linear_16", many_token_kernel<2, kExact>, blocks_of(16), kThreads, 0, args);
  } else {
    stream.launch("tile_linear_32", many_token_kernel<4, kExact>, blocks_of(32), kThreads, 0, args);
  }
}

}  // namespace

void tile_linear(Stream& stream, const TileLinearArgs& args) {
  if (args.exact) {
    launch_tile_linear<true>(stream, args);
  } else {
    launch_tile_linear<false>(stream, args);
  }
}

}  // namespace dsctl::engine::cuda
