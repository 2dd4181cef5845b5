// IQ3_XXS: 256 values in groups of 4 from a grid of 256 entries; 3.06 bits an element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq_signs.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (0.5 + scale) / 2 * grid * sign, with one 4-bit scale for 32 elements.
struct IQ3_XXS {
  static constexpr DType kDType = DType::IQ3_XXS;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;               // f16
    uint8_t grid_idx[64];      // for 4 elements each
    PackedU32 scale_signs[8];  // 4 x 7 bits of signs for 8 elements each, then 4 bits of scale
  };
  static_assert(sizeof(Block) == 98);

  DSCTL_HD static void dequantize(const Block& block, const uint8_t (*grid)[4],
                                  float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 8; ++group) {
      const uint32_t word = block.scale_signs[group].value();
      const float scale = d * (0.5F + static_cast<float>(word >> 28)) * 0.5F;
      for (int l = 0; l < 4; ++l) {
        const uint32_t signs = even_signs((word >> (7 * l)) & 127);
        const uint8_t* idx = block.grid_idx + group * 8 + l * 2;
        float* to = out + group * 32 + l * 8;
        write_signed<4>(scale, grid[idx[0]], signs, to);
        write_signed<4>(scale, grid[idx[1]], signs >> 4, to + 4);
      }
    }
  }
};

}  // namespace dsctl::gguf
