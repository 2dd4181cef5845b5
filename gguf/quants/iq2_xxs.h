// IQ2_XXS: 256 values in groups of 8 from a grid of 256 entries; 2.06 bits an element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq_signs.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (0.5 + scale) / 4 * grid * sign, with one 4-bit scale for 32 elements.
struct IQ2_XXS {
  static constexpr DType kDType = DType::IQ2_XXS;
  static constexpr int kBlockElems = 256;
  struct Block {
    struct Group {            // 32 elements
      uint8_t grid_idx[4];    // for 8 elements each
      PackedU32 scale_signs;  // 4 x 7 bits of signs, then 4 bits of scale
    };
    PackedU16 d;  // f16
    Group groups[8];
  };
  static_assert(sizeof(Block) == 66);

  DSCTL_HD static void dequantize(const Block& block, const uint8_t (*grid)[8],
                                  float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 8; ++group) {
      const Block::Group& part = block.groups[group];
      const uint32_t word = part.scale_signs.value();
      const float scale = d * (0.5F + static_cast<float>(word >> 28)) * 0.25F;
      for (int l = 0; l < 4; ++l) {
        write_signed<8>(scale, grid[part.grid_idx[l]], even_signs((word >> (7 * l)) & 127),
                        out + group * 32 + l * 8);
      }
    }
  }
};

}  // namespace dsctl::gguf
