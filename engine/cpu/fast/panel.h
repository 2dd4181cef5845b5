// How the fast path lays weights out in memory: panels of 16 rows, interleaved so that a vector
// lane is a row. Then nothing is ever summed across lanes, and a product with one token does the
// very same operations per output, in the same order, as a product with five hundred.
//
// A panel is a sequence of groups along the columns. A group holds the scales of its blocks (each
// an array over the 16 rows) and then its blocks of 32 columns. A block is a set of bit planes
// that together hold one unsigned integer of kBits bits per weight. The 32 columns are 8 steps of 4
// columns; in every 64-byte vector of a plane, byte 4 * row + i belongs to column {0, 2, 1, 3}[i]
// of a step, so that the even bytes, taken as words, are columns 0 and 1 and the odd ones 2 and 3:
//   nibble plane (bits 4, 5, 6): 4 vectors; vector j has step j in its low and step j + 4 in its
//     high nibbles;
//   pair plane (bits 2, 3, 6): 2 vectors; vector j has step 4 * j + f in bits 2 f and 2 f + 1;
//   single plane (bits 3, 5): 1 vector, step s in bit s;
//   byte plane (bits 8): 8 vectors, one for each step.
// Planes follow each other in this order; with 6 bits the nibble is the low part, with 3 and 5
// bits the single plane is the highest bit.
//
// No format grows by more than 6 % (most by nothing), so that decode, which is bound by memory,
// reads what the file holds.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::engine::fast {

inline constexpr int kPanelRows = 16;
inline constexpr int kBlockCols = 32;

/// What a group's scale area holds. Arrays are over the 16 rows; block b is 32 columns wide.
enum class ScaleKind {
  kHalf,        // group of 2 blocks: f16 d[2][16]
  kHalfMin,     // group of 1 block: f16 d[16], m[16]
  kExponent,    // group of 4 blocks: u8 e[4][16], the scale is 2^(e - 128)
  kSuper,       // group of 8: f16 d[16]; i8 s[8][16]; 32 bytes of padding
  kSuperMin,    // group of 8: f16 d[16], dmin[16]; u8 s[8][16]; u8 m[8][16]
  kSuper16,     // group of 8, scales per 16 columns: f16 d[16]; i8 s[16][16]; 32 bytes of padding
  kSuperMin16,  // group of 8: f16 d[16], dmin[16]; u8 [16][16]: s in the low, m in the high nibble
};

constexpr int blocks_of_group(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::kHalf:
      return 2;
    case ScaleKind::kHalfMin:
      return 1;
    case ScaleKind::kExponent:
      return 4;
    case ScaleKind::kSuper:
    case ScaleKind::kSuperMin:
    case ScaleKind::kSuper16:
    case ScaleKind::kSuperMin16:
      return 8;
  }
  return 0;
}

constexpr int scale_bytes_of_group(ScaleKind kind) {
  switch (kind) {
    case ScaleKind::kHalf:
    case ScaleKind::kHalfMin:
    case ScaleKind::kExponent:
      return 64;
    case ScaleKind::kSuper:
      return 192;
    case ScaleKind::kSuperMin:
    case ScaleKind::kSuper16:
    case ScaleKind::kSuperMin16:
      return 320;
  }
  return 0;
}

/// The stored integers of a format: value = scale * (integer - offset) - or scale * table[integer]
/// for the formats with a codebook - plus the format's minimum.
enum class Codebook { kNone, kIq4, kFp4 };

struct PanelFormat {
  int bits = 0;
  int offset = 0;  // a power of two or 0
  Codebook codebook = Codebook::kNone;
  ScaleKind scale_kind = ScaleKind::kHalf;

  constexpr int group_blocks() const { return blocks_of_group(scale_kind); }
  constexpr int group_cols() const { return group_blocks() * kBlockCols; }
  constexpr int scale_bytes() const { return scale_bytes_of_group(scale_kind); }
  /// A block of 16 rows x 32 columns.
  constexpr int block_bytes() const { return kPanelRows * kBlockCols / 8 * bits; }
  constexpr int group_bytes() const { return scale_bytes() + group_blocks() * block_bytes(); }
};

/// The panel format of `dtype`; bits == 0 when it has none and goes through f32.
constexpr PanelFormat panel_format(gguf::DType dtype) {
  using gguf::DType;
  // Formats without a panel form share the last return; the compiler need not list them here.
  if (dtype == DType::Q4_0) return {4, 8, Codebook::kNone, ScaleKind::kHalf};
  if (dtype == DType::Q4_1) return {4, 0, Codebook::kNone, ScaleKind::kHalfMin};
  if (dtype == DType::Q5_0) return {5, 16, Codebook::kNone, ScaleKind::kHalf};
  if (dtype == DType::Q5_1) return {5, 0, Codebook::kNone, ScaleKind::kHalfMin};
  if (dtype == DType::Q8_0) return {8, 128, Codebook::kNone, ScaleKind::kHalf};
  if (dtype == DType::Q2_K) return {2, 0, Codebook::kNone, ScaleKind::kSuperMin16};
  if (dtype == DType::Q3_K) return {3, 4, Codebook::kNone, ScaleKind::kSuper16};
  if (dtype == DType::Q4_K) return {4, 0, Codebook::kNone, ScaleKind::kSuperMin};
  if (dtype == DType::Q5_K) return {5, 0, Codebook::kNone, ScaleKind::kSuperMin};
  if (dtype == DType::Q6_K) return {6, 32, Codebook::kNone, ScaleKind::kSuper16};
  if (dtype == DType::IQ4_NL) return {4, 128, Codebook::kIq4, ScaleKind::kHalf};
  if (dtype == DType::IQ4_XS) return {4, 128, Codebook::kIq4, ScaleKind::kSuper};
  if (dtype == DType::MXFP4) return {4, 16, Codebook::kFp4, ScaleKind::kExponent};
  return {};
}

/// Codebook values plus the format's offset: unsigned, as the planes want them.
inline constexpr uint8_t kIq4Codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                          129, 141, 153, 166, 181, 197, 217, 241};
inline constexpr uint8_t kFp4Codes[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                          16, 15, 14, 13, 12, 10, 8,  4};

/// Activations quantised for the integer kernels. Tokens come in tiles of up to kMaxTileTokens; a
/// tile of T tokens is a sequence of records, one for each block of 32 columns:
///   int16 q[T][32]; f32 d[T]; f32 s[T]; i32 n[T]; i32 n16[2][T]
/// with x = d * q, s = d * sum(q), n = -sum(q), n16 the same for each half. Columns are padded with
/// zero records to a multiple of kTileBlockMultiple blocks, the longest group that can end early.
inline constexpr int kMaxTileTokens = 8;
inline constexpr int kTileBlockMultiple = 4;

constexpr int64_t record_bytes(int n_tile_tokens) {
  return int64_t{84} * n_tile_tokens;
}
constexpr int64_t padded_blocks(int64_t n_cols) {
  const int64_t n_blocks = (n_cols + kBlockCols - 1) / kBlockCols;
  return (n_blocks + kTileBlockMultiple - 1) / kTileBlockMultiple * kTileBlockMultiple;
}

}  // namespace dsctl::engine::fast
