// Panel products, written once over the sixteen lanes of simd_avx512.h or simd_avx2.h. Included by
// linear_avx512.cpp and linear_avx2.cpp only, after one of those.
//
// The order of additions to an output: over its blocks ascending; in a block all integer products
// first (exact in any order), then one multiply-add with weight scale x activation scale, then one
// for the minimum. It depends on nothing else, and both instruction sets give the same bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "engine/cpu/fast/isa.h"
#include "engine/cpu/fast/panel.h"

namespace dsctl::engine::fast {
namespace {

constexpr int log2_of(int n) {
  int log = 0;
  while ((1 << log) < n)
    ++log;
  return log;
}

/// The record of a block for a tile of T tokens (see panel.h).
template <int T>
struct Record {
  int16_t q[T][kBlockCols];
  float d[T];
  float s[T];
  int32_t n[T];
  int32_t n16[2][T];
};
static_assert(sizeof(Record<3>) == record_bytes(3));

/// The weights of columns 4 s .. 4 s + 3 of a block, as bytes (see panel.h).
template <PanelFormat kFormat, int s>
DSCTL_SIMD Ints step_weights(const std::byte* block, Ints table) {
  constexpr int kBits = kFormat.bits;
  constexpr int kPairOffset = kBits >= 4 ? 256 : 0;
  constexpr int kSingleOffset = kBits == 5 ? 256 : 128;
  if constexpr (kBits == 8) {
    return load_bytes(block + 64 * s);
  } else {
    Ints weights = zero_ints();
    if constexpr (kBits >= 4) {
      constexpr int kShift = s < 4 ? 0 : -4;
      const Ints nibbles = load_bytes(block + 64 * (s % 4));
      weights = and_bits(shift_bits<kShift>(nibbles), broadcast_byte(15));
    }
    if constexpr (kFormat.codebook != Codebook::kNone) weights = look_up(table, weights);
    if constexpr (kBits == 2 || kBits == 3 || kBits == 6) {
      constexpr int kTo = kBits == 6 ? 4 : 0;
      constexpr int kShift = kTo - 2 * (s % 4);
      const Ints pairs = load_bytes(block + kPairOffset + 64 * (s / 4));
      weights = or_masked(weights, shift_bits<kShift>(pairs), broadcast_byte(3 << kTo));
    }
    if constexpr (kBits == 3 || kBits == 5) {
      constexpr int kShift = kBits - 1 - s;
      const Ints singles = load_bytes(block + kSingleOffset);
      weights = or_masked(weights, shift_bits<kShift>(singles), broadcast_byte(1 << (kBits - 1)));
    }
    return weights;
  }
}

template <PanelFormat kFormat>
DSCTL_SIMD Ints codebook_table() {
  if constexpr (kFormat.codebook == Codebook::kIq4) return load_table(kIq4Codes);
  if constexpr (kFormat.codebook == Codebook::kFp4) return load_table(kFp4Codes);
  return zero_ints();
}

template <PanelFormat kFormat, int s, int T>
DSCTL_SIMD void dot_step(Ints (&sums)[T], const std::byte* block, const Record<T>& x, Ints table) {
  const Ints weights = step_weights<kFormat, s>(block, table);
  const Ints low = and_bits(weights, broadcast_int(0x00ff00ff));
  const Ints high = shift_bits<-8>(weights);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
    sums[t] = dot(dot(sums[t], low, x.q[t] + 4 * s), high, x.q[t] + 4 * s + 2);
}

/// -offset * sum(q), or zero where there is no offset.
template <PanelFormat kFormat, int T>
DSCTL_SIMD void start_sums(Ints (&sums)[T], const int32_t (&negative_sums)[T]) {
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    if constexpr (kFormat.offset != 0) {
      sums[t] = shift_left_ints<log2_of(kFormat.offset)>(broadcast_int(negative_sums[t]));
    } else {
      sums[t] = zero_ints();
    }
  }
}

/// The scales of 16 rows for a block, whatever form the format keeps them in.
template <PanelFormat kFormat>
struct GroupScales {
  static constexpr ScaleKind kKind = kFormat.scale_kind;
  static constexpr bool kHasMin = kKind == ScaleKind::kHalfMin || kKind == ScaleKind::kSuperMin;

  const std::byte* area;
  Floats d;
  Floats negative_dmin;

  DSCTL_SIMD explicit GroupScales(const std::byte* scales)
      : area(scales), d(zero_floats()), negative_dmin(zero_floats()) {
    if constexpr (kKind == ScaleKind::kSuper || kKind == ScaleKind::kSuperMin ||
                  kKind == ScaleKind::kSuper16 || kKind == ScaleKind::kSuperMin16) {
      d = load_half(area);
    }
    if constexpr (kKind == ScaleKind::kSuperMin || kKind == ScaleKind::kSuperMin16) {
      negative_dmin = sub(zero_floats(), load_half(area + 32));
    }
  }

  DSCTL_SIMD Floats scale(int block) const {
    if constexpr (kKind == ScaleKind::kExponent) {
      // e - 1 as the exponent bits; 2^-127 and 2^-128 become 0.
      const Ints e = add_ints(widen_unsigned(area + 16 * block), broadcast_int(-1));
      return bits_as_floats(shift_left_ints<23>(max_ints(e, zero_ints())));
    } else if constexpr (kKind == ScaleKind::kSuper) {
      return mul(d, to_floats(widen_signed(area + 32 + 16 * block)));
    } else if constexpr (kKind == ScaleKind::kSuperMin) {
      return mul(d, to_floats(widen_unsigned(area + 64 + 16 * block)));
    } else {
      return load_half(area + 32 * block);
    }
  }

  /// What is added for each unit of the activations' sum.
  DSCTL_SIMD Floats min(int block) const {
    if constexpr (kKind == ScaleKind::kSuperMin) {
      return mul(negative_dmin, to_floats(widen_unsigned(area + 64 + 128 + 16 * block)));
    } else {
      return load_half(area + 32);
    }
  }

  /// Formats with a scale for 16 columns: sub is 2 * block + half.
  DSCTL_SIMD Floats scale16(int sub) const {
    if constexpr (kKind == ScaleKind::kSuper16) {
      return mul(d, to_floats(widen_signed(area + 32 + 16 * sub)));
    } else {
      const Ints bytes = widen_unsigned(area + 64 + 16 * sub);
      return mul(d, to_floats(and_bits(bytes, broadcast_int(15))));
    }
  }
  DSCTL_SIMD Floats min16(int sub) const {
    const Ints bytes = widen_unsigned(area + 64 + 16 * sub);
    return mul(negative_dmin, to_floats(and_bits(shift_bits<-4>(bytes), broadcast_int(15))));
  }
};

template <PanelFormat kFormat, int T>
DSCTL_SIMD void add_block(Floats (&sums)[T], const GroupScales<kFormat>& scales, int block_idx,
                          const std::byte* block, const Record<T>& x, Ints table) {
  Ints products[T];
  start_sums<kFormat>(products, x.n);
  // A nibble vector serves two steps; keep them together.
  dot_step<kFormat, 0>(products, block, x, table);
  dot_step<kFormat, 4>(products, block, x, table);
  dot_step<kFormat, 1>(products, block, x, table);
  dot_step<kFormat, 5>(products, block, x, table);
  dot_step<kFormat, 2>(products, block, x, table);
  dot_step<kFormat, 6>(products, block, x, table);
  dot_step<kFormat, 3>(products, block, x, table);
  dot_step<kFormat, 7>(products, block, x, table);
  const Floats scale = scales.scale(block_idx);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    sums[t] = fma(to_floats(products[t]), mul(scale, broadcast(x.d[t])), sums[t]);
  }
  if constexpr (GroupScales<kFormat>::kHasMin) {
    const Floats min = scales.min(block_idx);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
      sums[t] = fma(min, broadcast(x.s[t]), sums[t]);
  }
}

/// add_block for formats whose scales cover 16 columns: the halves one after the other.
template <PanelFormat kFormat, int T>
DSCTL_SIMD void add_block16(Floats (&sums)[T], const GroupScales<kFormat>& scales, int block_idx,
                            const std::byte* block, const Record<T>& x, Ints table) {
  Ints low[T];
  Ints high[T];
  start_sums<kFormat>(low, x.n16[0]);
  start_sums<kFormat>(high, x.n16[1]);
  dot_step<kFormat, 0>(low, block, x, table);
  dot_step<kFormat, 4>(high, block, x, table);
  dot_step<kFormat, 1>(low, block, x, table);
  dot_step<kFormat, 5>(high, block, x, table);
  dot_step<kFormat, 2>(low, block, x, table);
  dot_step<kFormat, 6>(high, block, x, table);
  dot_step<kFormat, 3>(low, block, x, table);
  dot_step<kFormat, 7>(high, block, x, table);
  const Floats scale_low = scales.scale16(2 * block_idx);
  const Floats scale_high = scales.scale16(2 * block_idx + 1);
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    const Floats d = broadcast(x.d[t]);
    sums[t] = fma(to_floats(low[t]), mul(scale_low, d), sums[t]);
    sums[t] = fma(to_floats(high[t]), mul(scale_high, d), sums[t]);
  }
  if constexpr (kFormat.scale_kind == ScaleKind::kSuperMin16) {
    const Floats min_low = scales.min16(2 * block_idx);
    const Floats min_high = scales.min16(2 * block_idx + 1);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      // n16 are negative sums, min16 is a negative minimum.
      const Floats d = broadcast(-x.d[t]);
      sums[t] = fma(min_low, mul(d, to_floats(broadcast_int(x.n16[0][t]))), sums[t]);
      sums[t] = fma(min_high, mul(d, to_floats(broadcast_int(x.n16[1][t]))), sums[t]);
    }
  }
}

template <int T>
DSCTL_SIMD void store_outputs(const PanelProduct& product, Floats (&sums)[T], int64_t panel,
                              int64_t token) {
  const int64_t row = panel * kPanelRows;
  const int64_t left = product.n_rows - row;
  const int n = left < kPanelRows ? static_cast<int>(left) : kPanelRows;
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t) {
    if (product.bias != nullptr) sums[t] = add(sums[t], load_first(product.bias + row, n));
    store_first(product.y + (token + t) * product.y_stride + row, sums[t], n);
  }
}

/// One panel times one tile. Per block of 16 rows x 32 columns: 64 * bits bytes of weights read,
/// 512 T multiply-adds.
template <PanelFormat kFormat, int T>
void multiply_tile(const PanelProduct& product, int64_t panel, int64_t token,
                   const std::byte* tile) {
  constexpr int kGroupBlocks = kFormat.group_blocks();
  const int64_t n_groups = (product.n_cols + kFormat.group_cols() - 1) / kFormat.group_cols();
  const std::byte* group = product.panels + panel * product.panel_bytes;
  const auto* x = reinterpret_cast<const Record<T>*>(tile);
  const Ints table = codebook_table<kFormat>();
  Floats sums[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; ++t)
    sums[t] = zero_floats();
  for (int64_t g = 0; g < n_groups; ++g, group += kFormat.group_bytes(), x += kGroupBlocks) {
    const GroupScales<kFormat> scales(group);
    for (int b = 0; b < kGroupBlocks; ++b) {
      const std::byte* block = group + kFormat.scale_bytes() + b * kFormat.block_bytes();
      if constexpr (kFormat.scale_kind == ScaleKind::kSuper16 ||
                    kFormat.scale_kind == ScaleKind::kSuperMin16) {
        add_block16<kFormat, T>(sums, scales, b, block, x[b], table);
      } else {
        add_block<kFormat, T>(sums, scales, b, block, x[b], table);
      }
    }
  }
  store_outputs<T>(product, sums, panel, token);
}

using TileFunction = void (*)(const PanelProduct& product, int64_t panel, int64_t token,
                              const std::byte* tile);

/// Panels outside, tiles inside: a panel comes from memory once and stays in the cache.
void for_each_tile(const PanelProduct& product, int64_t panel_begin, int64_t panel_end,
                   int64_t tile_begin, int64_t tile_end, const TileFunction* functions) {
  for (int64_t panel = panel_begin; panel < panel_end; ++panel) {
    for (int64_t tile = tile_begin; tile < tile_end; ++tile) {
      const int64_t token = tile * kLinearTile;
      const int64_t left = product.n_tokens - token;
      const int64_t n = left < kLinearTile ? left : kLinearTile;
      functions[n](product, panel, token, product.tiles + tile * product.tile_bytes);
    }
  }
}

template <PanelFormat kFormat>
void multiply_panels(const PanelProduct& product, int64_t panel_begin, int64_t panel_end,
                     int64_t tile_begin, int64_t tile_end) {
  static constexpr auto kFunctions = []<int... i>(std::integer_sequence<int, i...>) {
    struct Table {
      TileFunction of[kLinearTile + 1];
    };
    return Table{{nullptr, multiply_tile<kFormat, i + 1>...}};
  }
  (std::make_integer_sequence<int, kLinearTile>());
  for_each_tile(product, panel_begin, panel_end, tile_begin, tile_end, kFunctions.of);
}

// Plain weights: f32 products, over the columns ascending, one multiply-add each.

template <gguf::DType kDType>
DSCTL_SIMD Floats load_plain(const std::byte* from) {
  if constexpr (kDType == gguf::DType::F32) return load(reinterpret_cast<const float*>(from));
  if constexpr (kDType == gguf::DType::F16) return load_half(from);
  if constexpr (kDType == gguf::DType::BF16) return load_bf16(from);
}

/// kPanels panels at once, so that the multiply-adds of few tokens do not wait for each other.
template <gguf::DType kDType, int kPanels, int T>
void multiply_plain_tile(const PanelProduct& product, int64_t panel, int64_t token,
                         const std::byte* tile) {
  constexpr int kStep = kPanelRows * (kDType == gguf::DType::F32 ? 4 : 2);
  const std::byte* weights = product.panels + panel * product.panel_bytes;
  const auto* x = reinterpret_cast<const float*>(tile);
  Floats sums[kPanels][T];
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t)
      sums[p][t] = zero_floats();
  }
  for (int64_t k = 0; k < product.n_cols; ++k, weights += kStep, x += T) {
#pragma GCC unroll 8
    for (int p = 0; p < kPanels; ++p) {
      const Floats w = load_plain<kDType>(weights + p * product.panel_bytes);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t)
        sums[p][t] = fma(w, broadcast(x[t]), sums[p][t]);
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < kPanels; ++p)
    store_outputs<T>(product, sums[p], panel + p, token);
}

template <gguf::DType kDType, int T>
void multiply_plain_panels_of(const PanelProduct& product, int64_t panel_begin, int64_t panel_end,
                              int64_t token, const std::byte* tile) {
  constexpr int kPanels = kLinearTile == 8 ? (T == 1 ? 8 : T <= 3 ? 4 : 2) : (T == 1 ? 4 : 1);
  int64_t panel = panel_begin;
  for (; panel + kPanels <= panel_end; panel += kPanels) {
    multiply_plain_tile<kDType, kPanels, T>(product, panel, token, tile);
  }
  for (; panel < panel_end; ++panel) {
    multiply_plain_tile<kDType, 1, T>(product, panel, token, tile);
  }
}

template <gguf::DType kDType>
void multiply_plain_panels(const PanelProduct& product, int64_t panel_begin, int64_t panel_end,
                           int64_t tile_begin, int64_t tile_end) {
  constexpr int64_t kPanelsAtOnce = 8;
  for (int64_t panel = panel_begin; panel < panel_end; panel += kPanelsAtOnce) {
    const int64_t end = panel_end - panel < kPanelsAtOnce ? panel_end : panel + kPanelsAtOnce;
    for (int64_t i = tile_begin; i < tile_end; ++i) {
      const int64_t token = i * kLinearTile;
      const int64_t left = product.n_tokens - token;
      const int n = left < kLinearTile ? static_cast<int>(left) : kLinearTile;
      const std::byte* tile = product.tiles + i * product.tile_bytes;
      [&]<int... t>(std::integer_sequence<int, t...>) {
        ((n == t + 1 ? multiply_plain_panels_of<kDType, t + 1>(product, panel, end, token, tile)
                     : void()),
         ...);
      }
      (std::make_integer_sequence<int, kLinearTile>());
    }
  }
}

template <gguf::DType kDType>
constexpr PanelFunction quantised_function() {
  return multiply_panels<panel_format(kDType)>;
}

PanelFunction panel_function(gguf::DType dtype) {
  using gguf::DType;
  if (dtype == DType::Q4_0) return quantised_function<DType::Q4_0>();
  if (dtype == DType::Q4_1) return quantised_function<DType::Q4_1>();
  if (dtype == DType::Q5_0) return quantised_function<DType::Q5_0>();
  if (dtype == DType::Q5_1) return quantised_function<DType::Q5_1>();
  if (dtype == DType::Q8_0) return quantised_function<DType::Q8_0>();
  if (dtype == DType::Q2_K) return quantised_function<DType::Q2_K>();
  if (dtype == DType::Q3_K) return quantised_function<DType::Q3_K>();
  if (dtype == DType::Q4_K) return quantised_function<DType::Q4_K>();
  if (dtype == DType::Q5_K) return quantised_function<DType::Q5_K>();
  if (dtype == DType::Q6_K) return quantised_function<DType::Q6_K>();
  if (dtype == DType::IQ4_NL) return quantised_function<DType::IQ4_NL>();
  if (dtype == DType::IQ4_XS) return quantised_function<DType::IQ4_XS>();
  if (dtype == DType::MXFP4) return quantised_function<DType::MXFP4>();
  if (dtype == DType::F32) return multiply_plain_panels<DType::F32>;
  if (dtype == DType::F16) return multiply_plain_panels<DType::F16>;
  if (dtype == DType::BF16) return multiply_plain_panels<DType::BF16>;
  return nullptr;
}

/// One block of one token: q = x * 32767 / max|x| to nearest even, so that x = d * q.
DSCTL_SIMD void quantize_block(Floats low, Floats high, int16_t* q, float* d, float* s, int32_t* n,
                               int32_t* n16_low, int32_t* n16_high) {
  // Below this 32767 / amax may overflow; such a block is zero for every purpose.
  constexpr float kTiny = 1e-30f;
  const float amax = max_lanes(max(abs(low), abs(high)));
  const float inverse = amax < kTiny ? 0.0f : 32767.0f / amax;
  *d = amax < kTiny ? 0.0f : amax / 32767.0f;
  const Ints q_low = to_ints(mul(low, broadcast(inverse)));
  const Ints q_high = to_ints(mul(high, broadcast(inverse)));
  store_as_words(q, q_low);
  store_as_words(q + 16, q_high);
  const int32_t sum_low = sum_lanes(q_low);
  const int32_t sum_high = sum_lanes(q_high);
  *s = *d * static_cast<float>(sum_low + sum_high);
  *n = -(sum_low + sum_high);
  *n16_low = -sum_low;
  *n16_high = -sum_high;
}

void quantize_tile(const float* x, int64_t x_stride, int n_tokens, int64_t n_cols,
                   std::byte* tile) {
  const int64_t n_blocks = padded_blocks(n_cols);
  const int64_t n_tile = n_tokens;
  for (int64_t t = 0; t < n_tile; ++t) {
    for (int64_t b = 0; b < n_blocks; ++b) {
      const float* from = x + t * x_stride + b * kBlockCols;
      const int64_t left = n_cols - b * kBlockCols;
      const int n_low = left >= 16 ? 16 : left > 0 ? static_cast<int>(left) : 0;
      const int n_high = left >= 32 ? 16 : left > 16 ? static_cast<int>(left - 16) : 0;
      const Floats low = n_low > 0 ? load_first(from, n_low) : zero_floats();
      const Floats high = n_high > 0 ? load_first(from + 16, n_high) : zero_floats();
      std::byte* record = tile + b * record_bytes(1) * n_tile;
      auto* q = reinterpret_cast<int16_t*>(record);
      auto* d = reinterpret_cast<float*>(record + 64 * n_tile);
      auto* n = reinterpret_cast<int32_t*>(record + 72 * n_tile);
      quantize_block(low, high, q + 32 * t, d + t, d + n_tile + t, n + t, n + n_tile + t,
                     n + 2 * n_tile + t);
    }
  }
}

}  // namespace
}  // namespace dsctl::engine::fast
