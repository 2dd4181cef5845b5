// Tiles: how quantised weights lie on the GPU. A panel is 16 rows; along the row it is cut in tiles
// of 8 steps of 32 columns (the last tile may have fewer). A tile holds the same bits as the blocks
// of the file, in the order in which the integer tensor cores take them: whole 16-byte words for
// every lane of a warp. No byte is added but for the padding of rows to 16 and of the last tile.
//
// With g = lane / 4, j = lane % 4 and r = 0..3, word r of a lane holds four codes of row
// g + 8 * (r & 1), columns 16 * (r >> 1) + 4j .. + 3 of a step (the A operand of mma m16n8k32).
//
// Planes of a tile, in this order:
//   codes   4-bit part: (pairs of steps, 32 lanes, 4 words), low nibbles of step 2p, high ones of
//           2p + 1; formats of 8 bits: (steps, 32 lanes, 4 words)
//   high    5 bits: (32 lanes, 4 words), word w holds bit 4 of the codes of steps 2w and 2w + 1 at
//           bits r and r + 4 of each byte; 6 bits: (2, 32 lanes, 4 words), word w of half p holds
//           bits 4 and 5 of step 4p + w at bits 2r and 2r + 1 of each byte
//   scales  by row, see ScaleKind
//
// Everything here is plain arithmetic for host and device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "gguf/dtype.h"
#include "gguf/quants/k4_scales.h"
#include "gguf/quants/q4_0.h"
#include "gguf/quants/q4_1.h"
#include "gguf/quants/q4_k.h"
#include "gguf/quants/q5_0.h"
#include "gguf/quants/q5_1.h"
#include "gguf/quants/q5_k.h"
#include "gguf/quants/q6_k.h"
#include "gguf/quants/q8_0.h"

namespace dsctl::engine::cuda {

constexpr int kPanelRows = 16;
constexpr int kStepCols = 32;
constexpr int kTileSteps = 8;
constexpr int kTileCols = kStepCols * kTileSteps;

/// What stands beside the codes, for each of the 16 rows:
/// kD       f16 d[8], one a step; value = d * (code - offset)
/// kDM      f16 d[8] of all rows, then f16 m[8] of all rows; value = d * code + m
/// kSixBit  f16 d, f16 dmin, then 4 x 24 bits {scale, min, scale, min} of the steps' pairs;
///          value = d * scale * code - dmin * min
/// kSigned  int8 scale[16], one for 16 columns, of all rows, then f16 d of all rows;
///          value = d * scale * (code - offset)
enum class ScaleKind { kD, kDM, kSixBit, kSigned };

template <typename FormatType, int bits, ScaleKind scale_kind, int code_offset>
struct TileFormat {
  using Format = FormatType;
  using Block = typename Format::Block;
  static constexpr int kBits = bits;
  static constexpr ScaleKind kScales = scale_kind;
  static constexpr int kOffset = code_offset;
  static constexpr int kHighBytes = bits == 5 ? 512 : bits == 6 ? 1024 : 0;
  static constexpr int kScaleBytes = scale_kind == ScaleKind::kDM       ? 512
                                     : scale_kind == ScaleKind::kSigned ? 288
                                                                        : 256;

  /// Bytes of the codes of a tile of `n_steps`.
  DSCTL_HD static constexpr int code_bytes(int n_steps) {
    return bits == 8 ? n_steps * 512 : (n_steps + 1) / 2 * 512;
  }
  DSCTL_HD static constexpr int tile_bytes(int n_steps) {
    return code_bytes(n_steps) + kHighBytes + kScaleBytes;
  }
};

using Q4_0Tile = TileFormat<gguf::Q4_0, 4, ScaleKind::kD, 8>;
using Q4_1Tile = TileFormat<gguf::Q4_1, 4, ScaleKind::kDM, 0>;
using Q5_0Tile = TileFormat<gguf::Q5_0, 5, ScaleKind::kD, 16>;
using Q5_1Tile = TileFormat<gguf::Q5_1, 5, ScaleKind::kDM, 0>;
using Q8_0Tile = TileFormat<gguf::Q8_0, 8, ScaleKind::kD, 0>;
using Q4_KTile = TileFormat<gguf::Q4_K, 4, ScaleKind::kSixBit, 0>;
using Q5_KTile = TileFormat<gguf::Q5_K, 5, ScaleKind::kSixBit, 0>;
using Q6_KTile = TileFormat<gguf::Q6_K, 6, ScaleKind::kSigned, 32>;
static_assert(Q4_KTile::tile_bytes(8) == 16 * sizeof(gguf::Q4_K::Block));
static_assert(Q5_KTile::tile_bytes(8) == 16 * sizeof(gguf::Q5_K::Block));
static_assert(Q6_KTile::tile_bytes(8) == 16 * sizeof(gguf::Q6_K::Block));
static_assert(Q8_0Tile::tile_bytes(8) == 16 * 8 * sizeof(gguf::Q8_0::Block));
static_assert(Q4_0Tile::tile_bytes(8) == 16 * 8 * sizeof(gguf::Q4_0::Block));
static_assert(Q4_1Tile::tile_bytes(8) == 16 * 8 * sizeof(gguf::Q4_1::Block));
static_assert(Q5_0Tile::tile_bytes(8) == 16 * 8 * sizeof(gguf::Q5_0::Block));
static_assert(Q5_1Tile::tile_bytes(8) == 16 * 8 * sizeof(gguf::Q5_1::Block));

/// On the host: calls body(Q4_KTile()) and so on for the format of `dtype`; false when it has none.
template <typename Body>
inline bool with_tile_format(gguf::DType dtype, const Body& body) {
  switch (dtype) {
    case gguf::DType::Q4_0:
      body(Q4_0Tile());
      return true;
    case gguf::DType::Q4_1:
      body(Q4_1Tile());
      return true;
    case gguf::DType::Q5_0:
      body(Q5_0Tile());
      return true;
    case gguf::DType::Q5_1:
      body(Q5_1Tile());
      return true;
    case gguf::DType::Q8_0:
      body(Q8_0Tile());
      return true;
    case gguf::DType::Q4_K:
      body(Q4_KTile());
      return true;
    case gguf::DType::Q5_K:
      body(Q5_KTile());
      return true;
    case gguf::DType::Q6_K:
      body(Q6_KTile());
      return true;
    default:  // the other types are used row by row as they are in the file
      return false;
  }
}

/// Where the tiles of a row of n_steps lie.
struct PanelShape {
  int n_steps = 0;

  DSCTL_HD int n_tiles() const { return (n_steps + kTileSteps - 1) / kTileSteps; }
  DSCTL_HD int tile_steps(int tile_idx) const {
    const int left = n_steps - tile_idx * kTileSteps;
    return left < kTileSteps ? left : kTileSteps;
  }
  template <typename Tile>
  DSCTL_HD int64_t panel_bytes() const {
    const int n_last = n_steps % kTileSteps;
    return static_cast<int64_t>(n_steps / kTileSteps) * Tile::tile_bytes(kTileSteps) +
           (n_last > 0 ? Tile::tile_bytes(n_last) : 0);
  }
};

// The code of element i of a block, as stored: unsigned, but for Q8_0's signed bytes.

DSCTL_HD inline int nibble_code(const uint8_t* qs, int i) {
  return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}
DSCTL_HD inline int block_code(const gguf::Q4_0::Block& block, int i) {
  return nibble_code(block.qs, i);
}
DSCTL_HD inline int block_code(const gguf::Q4_1::Block& block, int i) {
  return nibble_code(block.qs, i);
}
DSCTL_HD inline int block_code(const gguf::Q5_0::Block& block, int i) {
  return nibble_code(block.qs, i) | static_cast<int>(((block.qh.value() >> i) & 1) << 4);
}
DSCTL_HD inline int block_code(const gguf::Q5_1::Block& block, int i) {
  return nibble_code(block.qs, i) | static_cast<int>(((block.qh.value() >> i) & 1) << 4);
}
DSCTL_HD inline int block_code(const gguf::Q8_0::Block& block, int i) {
  return static_cast<uint8_t>(block.qs[i]);
}
DSCTL_HD inline int block_code(const gguf::Q4_K::Block& block, int i) {
  return gguf::nibble(block.qs[i / 64 * 32 + i % 32], i / 32 % 2);
}
DSCTL_HD inline int block_code(const gguf::Q5_K::Block& block, int i) {
  return gguf::nibble(block.qs[i / 64 * 32 + i % 32], i / 32 % 2) |
         (((block.qh[i % 32] >> (i / 32)) & 1) << 4);
}
DSCTL_HD inline int block_code(const gguf::Q6_K::Block& block, int i) {
  const int half = i / 128;
  const int quarter = i / 32 % 4;
  return gguf::nibble(block.ql[half * 64 + quarter % 2 * 32 + i % 32], quarter / 2) |
         (((block.qh[half * 32 + i % 32] >> (2 * quarter)) & 3) << 4);
}

/// Rows of blocks as the file has them. Rows from n_rows on count as zeros.
struct RawRows {
  const uint8_t* data = nullptr;
  int64_t row_bytes = 0;
  int n_rows = 0;
};

/// A word of a tile, made of the file's blocks: what the repacking kernel runs for each word.
template <typename Tile>
struct TilePacker {
  using Block = typename Tile::Block;
  static constexpr int kBlockElems = Tile::Format::kBlockElems;

  RawRows rows;      // of the panel
  int first_step;    // of the tile, in the row
  int n_tile_steps;  // steps that the tile has

  DSCTL_HD const Block* block(int row, int step) const {
    if (row >= rows.n_rows || step >= n_tile_steps) return nullptr;
    const int column = (first_step + step) * kStepCols;
    return reinterpret_cast<const Block*>(rows.data + row * rows.row_bytes) + column / kBlockElems;
  }

  DSCTL_HD uint32_t code(int row, int step, int column) const {
    const Block* found = block(row, step);
    if (found == nullptr) return 0;
    const int i = ((first_step + step) * kStepCols + column) % kBlockElems;
    return static_cast<uint32_t>(block_code(*found, i));
  }

  /// Word `word` (0..tile_bytes / 4) of the tile.
  DSCTL_HD uint32_t word(int word) const {
    const int n_code_words = Tile::code_bytes(n_tile_steps) / 4;
    if (word < n_code_words) return code_word(word);
    word -= n_code_words;
    if (word < Tile::kHighBytes / 4) return high_word(word);
    return scale_word(word - Tile::kHighBytes / 4);
  }

 private:
  DSCTL_HD static int row_of(int lane, int r) { return lane / 4 + 8 * (r & 1); }
  DSCTL_HD static int column_of(int lane, int r, int byte) {
    return 16 * (r >> 1) + 4 * (lane % 4) + byte;
  }

  DSCTL_HD uint32_t code_word(int word) const {
    const int r = word % 4;
    const int lane = word / 4 % 32;
    const int group = word / 128;  // of steps
    uint32_t result = 0;
    for (int byte = 0; byte < 4; ++byte) {
      const int row = row_of(lane, r);
      const int column = column_of(lane, r, byte);
      if constexpr (Tile::kBits == 8) {
        result |= code(row, group, column) << (8 * byte);
      } else {
        result |= (code(row, 2 * group, column) & 15) << (8 * byte);
        result |= (code(row, 2 * group + 1, column) & 15) << (8 * byte + 4);
      }
    }
    return result;
  }

  DSCTL_HD uint32_t high_word(int word) const {
    const int w = word % 4;
    const int lane = word / 4 % 32;
    uint32_t result = 0;
    for (int r = 0; r < 4; ++r) {
      for (int byte = 0; byte < 4; ++byte) {
        const int row = row_of(lane, r);
        const int column = column_of(lane, r, byte);
        if constexpr (Tile::kBits == 5) {
          result |= (code(row, 2 * w, column) >> 4) << (8 * byte + r);
          result |= (code(row, 2 * w + 1, column) >> 4) << (8 * byte + r + 4);
        } else {
          result |= (code(row, word / 128 * 4 + w, column) >> 4) << (8 * byte + 2 * r);
        }
      }
    }
    return result;
  }

  DSCTL_HD uint32_t scale_word(int word) const {
    if constexpr (Tile::kScales == ScaleKind::kSixBit) {
      const Block* found = block(word / 4, 0);
      return found == nullptr ? 0 : six_bit_word(*found, word % 4);
    } else if constexpr (Tile::kScales == ScaleKind::kSigned) {
      if (word < 64) {
        const Block* found = block(word / 4, 0);
        uint32_t result = 0;
        for (int i = 0; i < 4 && found != nullptr; ++i) {
          const auto scale = static_cast<uint8_t>(found->scales[word % 4 * 4 + i]);
          result |= static_cast<uint32_t>(scale) << (8 * i);
        }
        return result;
      }
      const int row = 2 * (word - 64);
      return half_d(block(row, 0)) | half_d(block(row + 1, 0)) << 16;
    } else {
      const int row = word / 4 % kPanelRows;
      const int step = word % 4 * 2;
      if (word < 64) return half_d(block(row, step)) | half_d(block(row, step + 1)) << 16;
      if constexpr (Tile::kScales == ScaleKind::kDM) {
        return half_m(block(row, step)) | half_m(block(row, step + 1)) << 16;
      }
      return 0;
    }
  }

  DSCTL_HD static uint32_t half_d(const Block* found) {
    return found == nullptr ? 0 : found->d.value();
  }
  DSCTL_HD static uint32_t half_m(const Block* found) {
    return found == nullptr ? 0 : found->m.value();
  }

  /// Word 0: d and dmin; words 1 to 3: the 96 bits.
  DSCTL_HD static uint32_t six_bit_word(const Block& found, int w) {
    if (w == 0) return found.d.value() | static_cast<uint32_t>(found.dmin.value()) << 16;
    const gguf::K4Scales scales(found.scales);
    uint32_t result = 0;
    for (int i = 0; i < 16; ++i) {  // six-bit fields in the order of the bits
      const int group = i / 2;      // step
      const uint32_t field = i % 2 == 0 ? scales.scale[group] : scales.min[group];
      const int bit = 6 * i - 32 * (w - 1);
      if (bit > -6 && bit < 0) result |= field >> -bit;
      if (bit >= 0 && bit < 32) result |= field << bit;
    }
    return result;
  }
};

// Activations beside the tiles: 16-bit codes with one scale for each 32 columns, their high and low
// bytes apart and in the order of the B operand: lane j of a quad reads its words of all 8 steps in
// a row. Products take both bytes, or the high ones alone, which is the usual 8-bit input.

/// 256 columns of one token. A value is scale * (256 * high + low), both bytes signed.
struct ActivationTile {
  struct Step {
    float scale;
    int16_t high_sums[2];  // of the bytes of columns 0..15 and 16..31
  };
  struct LowSums {
    int16_t sums[2];
  };
  uint32_t high[64];  // [j][step][half]: columns 16 * half + 4j .. + 3 of the step
  Step steps[kTileSteps];
  uint32_t low[64];
  LowSums low_sums[kTileSteps];
};
static_assert(sizeof(ActivationTile) == 608);

/// The place in ActivationTile::high and low of the four columns from `column` (a multiple of 4)
/// on.
DSCTL_HD inline int activation_word(int column) {
  const int step = column / kStepCols;
  const int half = column / 16 % 2;
  const int j = column / 4 % 4;
  return j * 16 + step * 2 + half;
}

}  // namespace dsctl::engine::cuda
