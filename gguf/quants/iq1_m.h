// IQ1_M: 256 nearly ternary values in groups of 8 from the IQ1_S grid; 1.75 bits an element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (2 * scale + 1) * (grid + delta), scale for 16 elements, delta for 8.
struct IQ1_M {
  static constexpr DType kDType = DType::IQ1_M;
  static constexpr int kBlockElems = 256;
  struct Block {
    uint8_t qs[32];       // low 8 bits of the grid index of 8 elements
    uint8_t qh[16];       // nibbles: 3 high bits of the index, the sign of delta
    PackedU16 scales[4];  // 4 x 3 bits of scale; the top nibbles together are d, an f16
  };
  static_assert(sizeof(Block) == 56);

  DSCTL_HD static void dequantize(const Block& block, const int8_t (*grid)[8],
                                  float* __restrict out) {
    int d_bits = 0;
    for (int i = 0; i < 4; ++i)
      d_bits |= (block.scales[i].value() >> 12) << (4 * i);
    const float d = half_to_float(static_cast<uint16_t>(d_bits));
    for (int group = 0; group < 32; ++group) {
      const int pair = group / 2;
      const int scale = (block.scales[pair / 4].value() >> (3 * (pair % 4))) & 7;
      const float dl = d * static_cast<float>(2 * scale + 1);
      const int high = nibble(block.qh[pair], group % 2);
      const float delta = (high & 8) != 0 ? -0.125F : 0.125F;
      const int8_t* entry = grid[block.qs[group] | ((high & 7) << 8)];
      DSCTL_KEEP_LOOP
      for (int e = 0; e < 8; ++e)
        out[group * 8 + e] = dl * (static_cast<float>(entry[e]) + delta);
    }
  }
};

}  // namespace dsctl::gguf
