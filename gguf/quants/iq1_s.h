// IQ1_S: 256 nearly ternary values in groups of 8 from a grid of 2048 entries; 1.56 bits an
// element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (2 * scale + 1) * (grid + delta), with scale and delta of its group of 32.
struct IQ1_S {
  static constexpr DType kDType = DType::IQ1_S;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;      // f16
    uint8_t qs[32];   // low 8 bits of the grid index of 8 elements
    PackedU16 qh[8];  // 4 x 3 high bits of indices, 3 bits of scale, the sign of delta
  };
  static_assert(sizeof(Block) == 50);

  DSCTL_HD static void dequantize(const Block& block, const int8_t (*grid)[8],
                                  float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 8; ++group) {
      const int qh = block.qh[group].value();
      const float scale = d * static_cast<float>(2 * ((qh >> 12) & 7) + 1);
      const float delta = (qh & 0x8000) != 0 ? -0.125F : 0.125F;
      for (int l = 0; l < 4; ++l) {
        const int8_t* entry = grid[block.qs[group * 4 + l] | (((qh >> (3 * l)) & 7) << 8)];
        float* to = out + group * 32 + l * 8;
        DSCTL_KEEP_LOOP
        for (int e = 0; e < 8; ++e)
          to[e] = scale * (static_cast<float>(entry[e]) + delta);
      }
    }
  }
};

}  // namespace dsctl::gguf
