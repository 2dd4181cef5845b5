// IQ2_XS: 256 values in groups of 8 from a grid of 512 entries; 2.31 bits an element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq_signs.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (0.5 + scale) / 4 * grid * sign, with one 4-bit scale for 16 elements.
struct IQ2_XS {
  static constexpr DType kDType = DType::IQ2_XS;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;        // f16
    PackedU16 qs[32];   // 9 bits of grid index, 7 bits of signs, for 8 elements
    uint8_t scales[8];  // nibbles
  };
  static_assert(sizeof(Block) == 74);

  DSCTL_HD static void dequantize(const Block& block, const uint8_t (*grid)[8],
                                  float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 32; ++group) {
      const uint32_t q = block.qs[group].value();
      const int scale = nibble(block.scales[group / 4], group / 2 % 2);
      const float dl = d * (0.5F + static_cast<float>(scale)) * 0.25F;
      write_signed<8>(dl, grid[q & 511], even_signs(q >> 9), out + group * 8);
    }
  }
};

}  // namespace dsctl::gguf
