// The encoders themselves, over the lanes of encode_lanes.h: included by one file for each
// instruction set. A format's own weights (without a matrix) and its way to round scales are those
// of ggml's reference.
#pragma once

#include <cmath>
#ifdef __F16C__
#include <immintrin.h>
#endif

#include "gguf/quants/encode_isa.h"
#include "gguf/quants/encode_search.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq4_nl.h"
#include "gguf/quants/iq4_xs.h"
#include "gguf/quants/k4_scales.h"
#include "gguf/quants/mxfp4.h"
#include "gguf/quants/plain.h"
#include "gguf/quants/q2_k.h"
#include "gguf/quants/q3_k.h"
#include "gguf/quants/q4_0.h"
#include "gguf/quants/q4_1.h"
#include "gguf/quants/q4_k.h"
#include "gguf/quants/q5_0.h"
#include "gguf/quants/q5_1.h"
#include "gguf/quants/q5_k.h"
#include "gguf/quants/q6_k.h"
#include "gguf/quants/q8_0.h"

namespace dsctl::gguf {
namespace {

DSCTL_LANES PackedU16 pack_half(float value) {
  const uint16_t bits = float_to_half(value);
  PackedU16 packed;
  std::memcpy(packed.bytes, &bits, sizeof(bits));
  return packed;
}

/// `value` as it will be read back from f16.
DSCTL_LANES float through_half(const PackedU16& half) {
  return half_to_float(half.value());
}

DSCTL_LANES int nearest_int(float value, int low, int high) {
  if (!(value > static_cast<float>(low))) return low;
  return value >= static_cast<float>(high) ? high
                                           : static_cast<int>((value + 12582912.0F) - 12582912.0F);
}

DSCTL_LANES float inverse_of(float value) {
  return value != 0.0F ? 1.0F / value : 0.0F;
}

DSCTL_LANES float sum_of_squares(const float* x, int64_t n) {
  float sum = 0;
  for (int64_t i = 0; i < n; ++i)
    sum += x[i] * x[i];
  return sum;
}

// ---- f16 and bf16

void encode_f32(const EncodeRows& rows) {
  std::memcpy(rows.dst, rows.src, static_cast<size_t>(rows.n_rows * rows.n_cols) * sizeof(float));
}

void encode_f16(const EncodeRows& rows) {
  const int64_t n = rows.n_rows * rows.n_cols;
  int64_t i = 0;
#ifdef __F16C__
  for (; i + 8 <= n; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(rows.src + i), 0);
    std::memcpy(rows.dst + i * 2, &halves, sizeof(halves));
  }
#endif
  for (; i < n; ++i) {
    const uint16_t bits = float_to_half(rows.src[i]);
    std::memcpy(rows.dst + i * 2, &bits, sizeof(bits));
  }
}

void encode_bf16(const EncodeRows& rows) {
  const int64_t n = rows.n_rows * rows.n_cols;
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t bits = float_to_bfloat(rows.src[i]);
    std::memcpy(rows.dst + i * 2, &bits, sizeof(bits));
  }
}

// ---- Blocks of 32 without a matrix: elements in lanes

/// A block's 32 elements.
struct Elements {
  Floats low;   // 0..15
  Floats high;  // 16..31

  DSCTL_LANES explicit Elements(const float* x) : low(load(x)), high(load(x + 16)) {}
  DSCTL_LANES float max() const { return largest_lane(larger(low, high)); }
  DSCTL_LANES float min() const { return -largest_lane(larger(-low, -high)); }
};

/// The element of largest magnitude, the first of several, with its sign.
DSCTL_LANES float first_extremum(const Elements& elements, const float* x) {
  const float max = elements.max();
  const float min = elements.min();
  if (max > -min) return max;
  if (-min > max) return min;
  for (int i = 0; i < 32; ++i) {
    if (std::fabs(x[i]) == max) return x[i];
  }
  return 0.0F;
}

/// Low nibbles of 16 bytes from the first half of the codes, high nibbles from the second.
DSCTL_LANES void pack_nibbles(const uint8_t* codes, uint8_t* qs) {
  for (int i = 0; i < 16; ++i)
    qs[i] = static_cast<uint8_t>((codes[i] & 15) | (codes[i + 16] << 4));
}

/// Bit 4 of each of 32 codes, for Q5_0 and Q5_1.
DSCTL_LANES PackedU32 pack_fifth_bits(const uint8_t* codes) {
  uint32_t bits = 0;
  for (int i = 0; i < 32; ++i)
    bits |= static_cast<uint32_t>(codes[i] >> 4) << i;
  PackedU32 packed;
  std::memcpy(packed.bytes, &bits, sizeof(bits));
  return packed;
}

template <typename Block>
DSCTL_LANES void store_codes(const uint8_t* codes, Block& block) {
  pack_nibbles(codes, block.qs);
  if constexpr (requires { block.qh; }) block.qh = pack_fifth_bits(codes);
}
template <typename Block>
DSCTL_LANES void store_codes(Ints low, Ints high, Block& block) {
  uint8_t codes[32];
  store_bytes(codes, low);
  store_bytes(codes + 16, high);
  store_codes(codes, block);
}

/// Q4_0, Q5_0: the extremum gets the lowest code.
template <int half_range, typename Block>
DSCTL_LANES void encode_symmetric(const float* x, Block& block) {
  const Elements elements(x);
  const float d = first_extremum(elements, x) / -static_cast<float>(half_range);
  const Floats inverse = Floats(inverse_of(d));
  constexpr float kOffset = static_cast<float>(half_range) + 0.5F;
  constexpr float kMax = 2 * half_range - 1;
  block.d = pack_half(d);
  store_codes(truncated(elements.low * inverse + kOffset, 0, kMax),
              truncated(elements.high * inverse + kOffset, 0, kMax), block);
}

/// Q4_1, Q5_1: the smallest element gets code 0, the largest the highest.
template <int max_code, typename Block>
DSCTL_LANES void encode_ranged(const float* x, Block& block) {
  const Elements elements(x);
  const float min = elements.min();
  const float d = (elements.max() - min) / static_cast<float>(max_code);
  const Floats inverse = Floats(inverse_of(d));
  block.d = pack_half(d);
  block.m = pack_half(min);
  store_codes(truncated((elements.low - min) * inverse + 0.5F, 0, max_code),
              truncated((elements.high - min) * inverse + 0.5F, 0, max_code), block);
}

/// Half away from zero, as roundf.
DSCTL_LANES Ints rounded_away(Floats x) {
  const Ints whole = truncated(x, -127, 127);
  const Floats rest = x - to_floats(whole);
  return whole - (rest >= 0.5F) + (rest <= -0.5F);
}

DSCTL_LANES void encode_block(const float* x, Q8_0::Block& block) {
  const Elements elements(x);
  const float d = largest_lane(larger(magnitude(elements.low), magnitude(elements.high))) / 127.0F;
  const Floats inverse = Floats(inverse_of(d));
  block.d = pack_half(d);
  const Ints low = rounded_away(elements.low * inverse);
  const Ints high = rounded_away(elements.high * inverse);
  uint8_t codes[32];
  store_bytes(codes, low);
  store_bytes(codes + 16, high);
  std::memcpy(block.qs, codes, sizeof(codes));
}

/// The first code whose value is nearest.
DSCTL_LANES Ints nearest_fp4(Floats x, float d) {
  Floats best = magnitude(-x);
  Ints code{};
  for (int i = 1; i < 16; ++i) {
    const Floats error = magnitude(Floats(static_cast<float>(fp4_doubled_value(i)) * d) - x);
    const Ints is_better = error < best;
    best = choose(is_better, error, best);
    code = choose(is_better, Ints(i), code);
  }
  return code;
}

DSCTL_LANES void encode_block(const float* x, MXFP4::Block& block) {
  const Elements elements(x);
  const float most = largest_lane(larger(magnitude(elements.low), magnitude(elements.high)));
  int exponent = 0;
  if (most > 0.0F) {
    // floor(log2(most)): of the bits, but log2f of the largest mantissas rounds up.
    exponent = static_cast<int>(std::floor(std::log2(most))) - 2 + 127;
  }
  block.e = static_cast<uint8_t>(exponent < 0 ? 0 : exponent > 254 ? 254 : exponent);
  const float d = e8m0_half(block.e);
  store_codes(nearest_fp4(elements.low, d), nearest_fp4(elements.high, d), block);
}

DSCTL_LANES void encode_block(const float* x, Q4_0::Block& block) {
  encode_symmetric<8>(x, block);
}
DSCTL_LANES void encode_block(const float* x, Q5_0::Block& block) {
  encode_symmetric<16>(x, block);
}
DSCTL_LANES void encode_block(const float* x, Q4_1::Block& block) {
  encode_ranged<15>(x, block);
}
DSCTL_LANES void encode_block(const float* x, Q5_1::Block& block) {
  encode_ranged<31>(x, block);
}

template <typename Format>
void encode_blocks(const EncodeRows& rows) {
  auto* blocks = reinterpret_cast<typename Format::Block*>(rows.dst);
  const int64_t n_blocks = rows.n_rows * rows.n_cols / Format::kBlockElems;
  for (int64_t i = 0; i < n_blocks; ++i)
    encode_block(rows.src + i * Format::kBlockElems, blocks[i]);
}

// ---- Groups in lanes

/// Sixteen groups of n elements that follow each other, with their columns' importance. Past the
/// end of the rows the last group is repeated.
template <int n>
struct LaneGroups {
  Groups<n> x;
  Groups<n> importance;

  DSCTL_LANES LaneGroups(const EncodeRows& rows, int64_t first_group) {
    const float* groups[kLanes];
    const float* columns[kLanes];
    const int64_t last = rows.n_rows * rows.n_cols / n - 1;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int64_t group = first_group + lane < last ? first_group + lane : last;
      groups[lane] = rows.src + group * n;
      columns[lane] = rows.importance + (rows.importance != nullptr ? group * n % rows.n_cols : 0);
    }
    gather(groups, x);
    if (rows.importance != nullptr) gather(columns, importance);
  }
};

/// importance * sqrt(sigma2 + x^2): what ggml weighs with when there is a matrix.
template <int n>
DSCTL_LANES void matrix_weights(const LaneGroups<n>& groups, Floats sigma2, Groups<n>& weights) {
  for (int i = 0; i < n; ++i) {
    const Floats x = groups.x.x[i];
    weights.x[i] = groups.importance.x[i] * square_root(sigma2 + x * x);
  }
}

template <int n>
DSCTL_LANES Floats sum(const Groups<n>& groups) {
  Floats total{};
  for (int i = 0; i < n; ++i)
    total += groups.x[i];
  return total;
}

/// codes = nearest((x + offset) / step) within [low, high], less low; left alone where step is 0.
template <int n>
DSCTL_LANES void encode_again(const Groups<n>& x, Floats step, Floats offset, float low, float high,
                              Groups<n>& codes) {
  const Ints is_nothing = step == 0.0F;
  for (int i = 0; i < n; ++i) {
    const Floats code = nearest((x.x[i] + offset) / step, low, high) - low;
    codes.x[i] = choose(is_nothing, codes.x[i], code);
  }
}

// ---- Blocks of 32 with a matrix; IQ4_NL

/// 16 blocks of Q4_0, Q4_1, Q5_0 or Q5_1 with a matrix. sigma2 is the mean square of the row.
template <typename Format>
DSCTL_LANES void encode_block_group(const EncodeRows& rows, int64_t first, const float* row_sigma2,
                                    Floats& d, Floats& m, Groups<32>& codes) {
  constexpr bool kHasMin = std::is_same_v<Format, Q4_1> || std::is_same_v<Format, Q5_1>;
  constexpr int kCodes = std::is_same_v<Format, Q5_0> || std::is_same_v<Format, Q5_1> ? 32 : 16;
  const LaneGroups<32> groups(rows, first);
  Groups<32> weights;
  matrix_weights(groups, load(row_sigma2), weights);
  if constexpr (kHasMin) {
    const ScaleMin found = search_scale_min(groups.x, weights, {kCodes - 1, -0.9F, 0.05F, 36},
                                            ErrorMeasure::kSquare, codes);
    d = found.scale;
    m = -found.min;
  } else {
    d = search_scale(groups.x, weights, kCodes / 2, codes);
  }
}

template <typename Format>
void encode_with_matrix(const EncodeRows& rows) {
  const int64_t n_blocks = rows.n_rows * rows.n_cols / 32;
  const int64_t per_row = rows.n_cols / 32;
  auto* blocks = reinterpret_cast<typename Format::Block*>(rows.dst);
  int64_t row = -1;
  float sigma2 = 0;
  for (int64_t first = 0; first < n_blocks; first += kLanes) {
    const int64_t n = n_blocks - first < kLanes ? n_blocks - first : kLanes;
    float sigmas[kLanes] = {};
    for (int64_t lane = 0; lane < n; ++lane) {
      if ((first + lane) / per_row != row) {
        row = (first + lane) / per_row;
        sigma2 = sum_of_squares(rows.src + row * rows.n_cols, rows.n_cols) /
                 static_cast<float>(rows.n_cols);
      }
      sigmas[lane] = sigma2;
    }
    Floats d;
    Floats m{};
    Groups<32> codes;
    encode_block_group<Format>(rows, first, sigmas, d, m, codes);
    uint8_t bytes[kLanes * 32];
    scatter_codes(codes, bytes);
    for (int64_t lane = 0; lane < n; ++lane) {
      auto& block = blocks[first + lane];
      block.d = pack_half(d[lane]);
      if constexpr (requires { block.m; }) block.m = pack_half(m[lane]);
      store_codes(bytes + lane * 32, block);
    }
  }
}

template <typename Format>
void encode_32(const EncodeRows& rows) {
  if (rows.importance != nullptr) return encode_with_matrix<Format>(rows);
  encode_blocks<Format>(rows);
}

/// Weights of the 4-bit table formats: x^2, or the matrix's. `block_elems` is what sigma2 is the
/// (doubled) mean square of: a block of 32 or of 256.
DSCTL_LANES void table_weights(const LaneGroups<32>& groups, const EncodeRows& rows, int64_t first,
                               int block_elems, Groups<32>& weights) {
  if (rows.importance == nullptr) {
    for (int i = 0; i < 32; ++i)
      weights.x[i] = groups.x.x[i] * groups.x.x[i];
    return;
  }
  float sigmas[kLanes];
  const int64_t n_groups = rows.n_rows * rows.n_cols / 32;
  const int per_block = block_elems / 32;
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lane > 0 && lane % per_block != 0) {
      sigmas[lane] = sigmas[lane - 1];
      continue;
    }
    const int64_t group = first + lane < n_groups ? first + lane : n_groups - per_block;
    sigmas[lane] = sum_of_squares(rows.src + group * 32, block_elems) *
                   (2.0F / static_cast<float>(block_elems));
  }
  matrix_weights(groups, load(sigmas), weights);
}

DSCTL_LANES void table_codes(const Groups<32>& x, Floats inverse, uint8_t* bytes) {
  Groups<32> codes;
  for (int i = 0; i < 32; ++i)
    codes.x[i] = nearest_in_table(inverse * x.x[i]).code;
  scatter_codes(codes, bytes);
}

DSCTL_LANES Floats inverse_lanes(Floats x) {
  return choose(x != 0.0F, 1.0F / x, Floats{});
}

void encode_iq4_nl(const EncodeRows& rows) {
  const int64_t n_blocks = rows.n_rows * rows.n_cols / 32;
  auto* blocks = reinterpret_cast<IQ4_NL::Block*>(rows.dst);
  for (int64_t first = 0; first < n_blocks; first += kLanes) {
    const LaneGroups<32> groups(rows, first);
    Groups<32> weights;
    table_weights(groups, rows, first, 32, weights);
    const Floats scale = search_table_scale(groups.x, weights);
    uint8_t codes[kLanes * 32];
    table_codes(groups.x, inverse_lanes(scale), codes);
    for (int lane = 0; lane < kLanes && first + lane < n_blocks; ++lane) {
      blocks[first + lane].d = pack_half(scale[lane]);
      pack_nibbles(codes + lane * 32, blocks[first + lane].qs);
    }
  }
}

/// Blocks of 256 in 8 groups of 32: two of them fill the lanes. Calls encode(first_group, n) with
/// n of 1 or 2 blocks.
template <typename Encode>
DSCTL_LANES void for_block_pairs(const EncodeRows& rows, Encode&& encode) {
  const int64_t n_blocks = rows.n_rows * rows.n_cols / 256;
  for (int64_t block = 0; block < n_blocks; block += 2)
    encode(block, n_blocks - block < 2 ? 1 : 2);
}

void encode_iq4_xs(const EncodeRows& rows) {
  auto* blocks = reinterpret_cast<IQ4_XS::Block*>(rows.dst);
  for_block_pairs(rows, [&](int64_t first, int n_blocks) {
    const LaneGroups<32> groups(rows, first * 8);
    Groups<32> weights;
    table_weights(groups, rows, first * 8, 256, weights);
    const Floats scale = search_table_scale(groups.x, weights);
    float steps[kLanes] = {};
    for (int b = 0; b < n_blocks; ++b) {
      IQ4_XS::Block& block = blocks[first + b];
      float most = 0;
      float signed_most = 0;
      for (int g = 0; g < 8; ++g) {
        if (std::fabs(scale[b * 8 + g]) > most) {
          most = std::fabs(scale[b * 8 + g]);
          signed_most = scale[b * 8 + g];
        }
      }
      const float d = -signed_most / 32;
      const float inverse = inverse_of(d);
      block.d = pack_half(d);
      uint16_t high = 0;
      for (int g = 0; g < 8; ++g) {
        const int code = nearest_int(inverse * scale[b * 8 + g], -32, 31);
        steps[b * 8 + g] = d * static_cast<float>(code);
        const int bits = code + 32;
        const int shift = g % 2 * 4;
        block.scales_l[g / 2] = static_cast<uint8_t>(
            shift == 0 ? bits & 15 : block.scales_l[g / 2] | ((bits & 15) << shift));
        high = static_cast<uint16_t>(high | ((bits >> 4) << (2 * g)));
      }
      std::memcpy(block.scales_h.bytes, &high, sizeof(high));
    }
    uint8_t codes[kLanes * 32];
    table_codes(groups.x, inverse_lanes(load(steps)), codes);
    for (int g = 0; g < n_blocks * 8; ++g)
      pack_nibbles(codes + g * 32, blocks[first + g / 8].qs + g % 8 * 16);
  });
}

// ---- Q4_K and Q5_K

DSCTL_LANES void pack_k4_scales(const uint8_t* scale, const uint8_t* min, uint8_t (&packed)[12]) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(scale[j] | ((scale[j + 4] >> 4) << 6));
    packed[j + 4] = static_cast<uint8_t>(min[j] | ((min[j + 4] >> 4) << 6));
    packed[j + 8] = static_cast<uint8_t>((scale[j + 4] & 15) | ((min[j + 4] & 15) << 4));
  }
}

/// The scales and minimums of a block, rounded: each set under one f16.
struct RoundedScales {
  PackedU16 d;
  PackedU16 dmin;
  uint8_t scale[16];
  uint8_t min[16];
};

/// Without a matrix: the largest gets the highest code.
DSCTL_LANES void round_scales(const float* scales, const float* mins, int n, int max_code,
                              RoundedScales& rounded) {
  float max_scale = 0;
  float max_min = 0;
  for (int g = 0; g < n; ++g) {
    max_scale = scales[g] > max_scale ? scales[g] : max_scale;
    max_min = mins[g] > max_min ? mins[g] : max_min;
  }
  const auto max = static_cast<float>(max_code);
  const float inverse_scale = max_scale > 0 ? max / max_scale : 0.0F;
  const float inverse_min = max_min > 0 ? max / max_min : 0.0F;
  for (int g = 0; g < n; ++g) {
    rounded.scale[g] = static_cast<uint8_t>(nearest_int(inverse_scale * scales[g], 0, max_code));
    rounded.min[g] = static_cast<uint8_t>(nearest_int(inverse_min * mins[g], 0, max_code));
  }
  rounded.d = pack_half(max_scale / max);
  rounded.dmin = pack_half(max_min / max);
}

/// With a matrix: searched, weighed by the sums of the groups' weights. Both blocks of a pair at
/// once, each with its scales and its minimums in a lane of their own. n = 16 / n_blocks groups.
template <int n>
DSCTL_LANES void search_rounded_scales(const float* scales, const float* mins, const float* sums,
                                       int max_code, RoundedScales* rounded) {
  constexpr int kBlocks = kLanes / n;
  Groups<n> values;
  Groups<n> weights;
  for (int i = 0; i < n; ++i) {
    float value[kLanes] = {};
    float weight[kLanes] = {};
    for (int b = 0; b < kBlocks; ++b) {
      value[2 * b] = scales[b * n + i];
      value[2 * b + 1] = mins[b * n + i];
      weight[2 * b] = weight[2 * b + 1] = sums[b * n + i];
    }
    values.x[i] = load(value);
    weights.x[i] = load(weight);
  }
  Groups<n> codes;
  const Floats d = search_positive_scale(values, weights, max_code, codes);
  for (int b = 0; b < kBlocks; ++b) {
    rounded[b].d = pack_half(d[2 * b]);
    rounded[b].dmin = pack_half(d[2 * b + 1]);
    for (int i = 0; i < n; ++i) {
      rounded[b].scale[i] = static_cast<uint8_t>(codes.x[i][2 * b]);
      rounded[b].min[i] = static_cast<uint8_t>(codes.x[i][2 * b + 1]);
    }
  }
}

/// What the step and the minimum of each group are once rounded, lanes in the groups' order.
template <int n>
DSCTL_LANES void rounded_steps(const RoundedScales* rounded, Floats& step, Floats& min) {
  float steps[kLanes];
  float mins[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const RoundedScales& block = rounded[lane / n];
    steps[lane] = through_half(block.d) * static_cast<float>(block.scale[lane % n]);
    mins[lane] = through_half(block.dmin) * static_cast<float>(block.min[lane % n]);
  }
  step = load(steps);
  min = load(mins);
}

/// Mean squares of the two blocks in the lanes, doubled, for the matrix's weights.
DSCTL_LANES Floats pair_sigma2(const EncodeRows& rows, int64_t first, int n_blocks) {
  float sigmas[kLanes];
  for (int b = 0; b < 2; ++b) {
    const float* x = rows.src + (first + (b < n_blocks ? b : 0)) * 256;
    const float sigma2 = 2 * sum_of_squares(x, 256) / 256;
    for (int g = 0; g < 8; ++g)
      sigmas[b * 8 + g] = sigma2;
  }
  return load(sigmas);
}

/// The codes (256 a block) and scales of one or two blocks.
template <int max_code>
DSCTL_LANES void encode_k4_pair(const EncodeRows& rows, int64_t first, int n_blocks, uint8_t* bytes,
                                RoundedScales* rounded) {
  const LaneGroups<32> groups(rows, first * 8);
  const bool has_matrix = rows.importance != nullptr;
  Groups<32> weights;
  if (has_matrix) {
    matrix_weights(groups, pair_sigma2(rows, first, n_blocks), weights);
  } else {
    Floats squares{};
    for (int i = 0; i < 32; ++i)
      squares += groups.x.x[i] * groups.x.x[i];
    const Floats average = square_root(squares / 32.0F);
    for (int i = 0; i < 32; ++i)
      weights.x[i] = average + magnitude(groups.x.x[i]);
  }
  const ScaleSteps steps = has_matrix       ? ScaleSteps{max_code, -0.9F, 0.05F, 36}
                           : max_code == 15 ? ScaleSteps{max_code, -1.0F, 0.1F, 20}
                                            : ScaleSteps{max_code, -0.5F, 0.1F, 15};
  Groups<32> codes;
  const ScaleMin found = search_scale_min(groups.x, weights, steps, ErrorMeasure::kSquare, codes);
  float scales[kLanes];
  float mins[kLanes];
  store(scales, found.scale);
  store(mins, found.min);
  if (has_matrix) {
    float sums[kLanes];
    store(sums, sum(weights));
    search_rounded_scales<8>(scales, mins, sums, 63, rounded);
  } else {
    for (int b = 0; b < 2; ++b)
      round_scales(scales + b * 8, mins + b * 8, 8, 63, rounded[b]);
  }
  Floats step;
  Floats min;
  rounded_steps<8>(rounded, step, min);
  encode_again(groups.x, step, min, 0, max_code, codes);
  scatter_codes(codes, bytes);
}

/// The low nibbles of 256 codes in the order of Q4_K and Q5_K.
DSCTL_LANES void pack_k_nibbles(const uint8_t* codes, uint8_t* qs) {
  for (int pair = 0; pair < 4; ++pair) {
    for (int i = 0; i < 32; ++i) {
      qs[pair * 32 + i] = static_cast<uint8_t>((codes[pair * 64 + i] & 15) |
                                               ((codes[pair * 64 + 32 + i] & 15) << 4));
    }
  }
}

template <typename Format>
void encode_k4(const EncodeRows& rows) {
  constexpr bool kIsQ5 = std::is_same_v<Format, Q5_K>;
  auto* blocks = reinterpret_cast<typename Format::Block*>(rows.dst);
  for_block_pairs(rows, [&](int64_t first, int n_blocks) {
    uint8_t bytes[512];
    RoundedScales rounded[2];
    encode_k4_pair<kIsQ5 ? 31 : 15>(rows, first, n_blocks, bytes, rounded);
    for (int b = 0; b < n_blocks; ++b) {
      auto& block = blocks[first + b];
      const uint8_t* codes = bytes + b * 256;
      block.d = rounded[b].d;
      block.dmin = rounded[b].dmin;
      pack_k4_scales(rounded[b].scale, rounded[b].min, block.scales);
      pack_k_nibbles(codes, block.qs);
      if constexpr (kIsQ5) {
        for (int i = 0; i < 32; ++i) {
          int bits = 0;
          for (int g = 0; g < 8; ++g)
            bits |= (codes[g * 32 + i] >> 4) << g;
          block.qh[i] = static_cast<uint8_t>(bits);
        }
      }
    }
  });
}

// ---- Blocks of 256 in 16 groups of 16

/// Two bits of each code, in the order of Q2_K and Q3_K.
DSCTL_LANES void pack_k_pairs(const uint8_t* codes, uint8_t* qs) {
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t* q = codes + half * 128 + i;
      qs[half * 32 + i] = static_cast<uint8_t>((q[0] & 3) | ((q[32] & 3) << 2) |
                                               ((q[64] & 3) << 4) | ((q[96] & 3) << 6));
    }
  }
}

void encode_q2_k(const EncodeRows& rows) {
  auto* blocks = reinterpret_cast<Q2_K::Block*>(rows.dst);
  const int64_t n_blocks = rows.n_rows * rows.n_cols / 256;
  const bool has_matrix = rows.importance != nullptr;
  for (int64_t b = 0; b < n_blocks; ++b) {
    const LaneGroups<16> groups(rows, b * 16);
    Groups<16> weights;
    Groups<16> codes;
    ScaleMin found;
    if (has_matrix) {
      matrix_weights(groups, sum_of_squares(rows.src + b * 256, 256) / 256, weights);
      found =
          search_scale_min(groups.x, weights, {3, -0.9F, 0.05F, 36}, ErrorMeasure::kSquare, codes);
    } else {
      for (int i = 0; i < 16; ++i)
        weights.x[i] = magnitude(groups.x.x[i]);
      found =
          search_scale_min(groups.x, weights, {3, -0.5F, 0.1F, 15}, ErrorMeasure::kAbsolute, codes);
    }
    float scales[kLanes];
    float mins[kLanes];
    store(scales, found.scale);
    store(mins, found.min);
    RoundedScales rounded;
    if (has_matrix) {
      float sums[kLanes];
      store(sums, sum(weights));
      search_rounded_scales<16>(scales, mins, sums, 15, &rounded);
    } else {
      round_scales(scales, mins, 16, 15, rounded);
    }
    Floats step;
    Floats min;
    rounded_steps<16>(&rounded, step, min);
    encode_again(groups.x, step, min, 0, 3, codes);
    uint8_t bytes[256];
    scatter_codes(codes, bytes);
    blocks[b].d = rounded.d;
    blocks[b].dmin = rounded.dmin;
    for (int g = 0; g < 16; ++g)
      blocks[b].scales[g] = static_cast<uint8_t>(rounded.scale[g] | (rounded.min[g] << 4));
    pack_k_pairs(bytes, blocks[b].qs);
  }
}

/// The scales of a Q3_K block, rounded: codes 0..63 for -32..31, and d.
DSCTL_LANES PackedU16 round_q3_scales(const float* scales, uint8_t (&codes)[16]) {
  float most = 0;
  float signed_most = 0;
  for (int g = 0; g < 16; ++g) {
    if (std::fabs(scales[g]) > most) {
      most = std::fabs(scales[g]);
      signed_most = scales[g];
    }
  }
  if (signed_most == 0.0F) {
    std::memset(codes, 0, sizeof(codes));
    return pack_half(0.0F);
  }
  const float inverse = -32.0F / signed_most;
  for (int g = 0; g < 16; ++g)
    codes[g] = static_cast<uint8_t>(nearest_int(inverse * scales[g], -32, 31) + 32);
  return pack_half(1.0F / inverse);
}

/// The same with a matrix: searched, in one lane.
DSCTL_LANES PackedU16 search_q3_scales(const float* scales, const float* sums,
                                       uint8_t (&codes)[16]) {
  Groups<16> values;
  Groups<16> weights;
  for (int g = 0; g < 16; ++g) {
    values.x[g] = Floats(scales[g]);
    weights.x[g] = Floats(sums[g]);
  }
  Groups<16> found;
  const Floats d = search_scale(values, weights, 32, found);
  for (int g = 0; g < 16; ++g)
    codes[g] = static_cast<uint8_t>(found.x[g][0]);
  return pack_half(d[0]);
}

DSCTL_LANES void pack_q3_scales(const uint8_t (&codes)[16], uint8_t (&packed)[12]) {
  std::memset(packed, 0, sizeof(packed));
  for (int g = 0; g < 16; ++g) {
    const int low = (codes[g] & 15) << (g / 8 * 4);
    packed[g % 8] = static_cast<uint8_t>(packed[g % 8] | low);
    const int high = (codes[g] >> 4) << (2 * (g / 4));
    packed[8 + g % 4] = static_cast<uint8_t>(packed[8 + g % 4] | high);
  }
}

void encode_q3_k(const EncodeRows& rows) {
  auto* blocks = reinterpret_cast<Q3_K::Block*>(rows.dst);
  const int64_t n_blocks = rows.n_rows * rows.n_cols / 256;
  for (int64_t b = 0; b < n_blocks; ++b) {
    Q3_K::Block& block = blocks[b];
    const LaneGroups<16> groups(rows, b * 16);
    Groups<16> codes;
    float scales[kLanes];
    uint8_t scale_codes[16];
    if (rows.importance != nullptr) {
      Groups<16> weights;
      matrix_weights(groups, 2 * sum_of_squares(rows.src + b * 256, 256) / 256, weights);
      store(scales, search_scale(groups.x, weights, 4, codes));
      float sums[kLanes];
      store(sums, sum(weights));
      block.d = search_q3_scales(scales, sums, scale_codes);
    } else {
      store(scales, refine_scale_3bit(groups.x, codes));
      block.d = round_q3_scales(scales, scale_codes);
    }
    float steps[kLanes];
    for (int g = 0; g < 16; ++g)
      steps[g] = through_half(block.d) * static_cast<float>(scale_codes[g] - 32);
    encode_again(groups.x, load(steps), Floats{}, -4, 3, codes);
    uint8_t bytes[256];
    scatter_codes(codes, bytes);
    pack_q3_scales(scale_codes, block.scales);
    pack_k_pairs(bytes, block.qs);
    for (int i = 0; i < 32; ++i) {
      int bits = 0;
      for (int g = 0; g < 8; ++g)
        bits |= (bytes[g * 32 + i] >> 2) << g;
      block.hmask[i] = static_cast<uint8_t>(bits);
    }
  }
}

DSCTL_LANES void pack_q6(const uint8_t* codes, Q6_K::Block& block) {
  for (int half = 0; half < 2; ++half) {
    for (int i = 0; i < 32; ++i) {
      const uint8_t* q = codes + half * 128 + i;
      block.ql[half * 64 + i] = static_cast<uint8_t>((q[0] & 15) | ((q[64] & 15) << 4));
      block.ql[half * 64 + 32 + i] = static_cast<uint8_t>((q[32] & 15) | ((q[96] & 15) << 4));
      block.qh[half * 32 + i] = static_cast<uint8_t>((q[0] >> 4) | ((q[32] >> 4) << 2) |
                                                     ((q[64] >> 4) << 4) | ((q[96] >> 4) << 6));
    }
  }
}

void encode_q6_k(const EncodeRows& rows) {
  auto* blocks = reinterpret_cast<Q6_K::Block*>(rows.dst);
  const int64_t n_blocks = rows.n_rows * rows.n_cols / 256;
  for (int64_t b = 0; b < n_blocks; ++b) {
    Q6_K::Block& block = blocks[b];
    const LaneGroups<16> groups(rows, b * 16);
    Groups<16> weights;
    for (int i = 0; i < 16; ++i) {
      weights.x[i] =
          rows.importance != nullptr ? groups.importance.x[i] : groups.x.x[i] * groups.x.x[i];
    }
    Groups<16> codes;
    float scales[kLanes];
    store(scales, search_scale(groups.x, weights, 32, codes));
    float most = 0;
    float signed_most = 0;
    for (int g = 0; g < 16; ++g) {
      if (std::fabs(scales[g]) > most) {
        most = std::fabs(scales[g]);
        signed_most = scales[g];
      }
    }
    if (most < kNothing) {
      std::memset(&block, 0, sizeof(block));
      continue;
    }
    const float inverse = -128.0F / signed_most;
    block.d = pack_half(1.0F / inverse);
    float steps[kLanes];
    for (int g = 0; g < 16; ++g) {
      block.scales[g] = static_cast<int8_t>(nearest_int(inverse * scales[g], -128, 127));
      steps[g] = through_half(block.d) * static_cast<float>(block.scales[g]);
    }
    encode_again(groups.x, load(steps), Floats{}, -32, 31, codes);
    uint8_t bytes[256];
    scatter_codes(codes, bytes);
    pack_q6(bytes, block);
  }
}

RowsEncoder encoder_of(DType dtype) {
  // A list of what we write, so an exception to switches without default.
  switch (dtype) {
    case DType::F32:
      return encode_f32;
    case DType::F16:
      return encode_f16;
    case DType::BF16:
      return encode_bf16;
    case DType::Q4_0:
      return encode_32<Q4_0>;
    case DType::Q4_1:
      return encode_32<Q4_1>;
    case DType::Q5_0:
      return encode_32<Q5_0>;
    case DType::Q5_1:
      return encode_32<Q5_1>;
    case DType::Q8_0:
      return encode_blocks<Q8_0>;
    case DType::MXFP4:
      return encode_blocks<MXFP4>;
    case DType::Q2_K:
      return encode_q2_k;
    case DType::Q3_K:
      return encode_q3_k;
    case DType::Q4_K:
      return encode_k4<Q4_K>;
    case DType::Q5_K:
      return encode_k4<Q5_K>;
    case DType::Q6_K:
      return encode_q6_k;
    case DType::IQ4_NL:
      return encode_iq4_nl;
    case DType::IQ4_XS:
      return encode_iq4_xs;
    default:
      return nullptr;
  }
}

}  // namespace
}  // namespace dsctl::gguf
