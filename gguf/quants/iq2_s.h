// IQ2_S: 256 values in groups of 8 from a grid of 1024 entries; 2.56 bits an element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq_signs.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (0.5 + scale) / 4 * grid * sign, with one 4-bit scale for 16 elements.
struct IQ2_S {
  static constexpr DType kDType = DType::IQ2_S;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;     // f16
    uint8_t qs[32];  // low 8 bits of the grid index of 8 elements
    uint8_t signs[32];
    uint8_t qh[8];      // bits 2l: high bits of the grid index of group 4 * byte + l
    uint8_t scales[8];  // nibbles
  };
  static_assert(sizeof(Block) == 82);

  DSCTL_HD static void dequantize(const Block& block, const uint8_t (*grid)[8],
                                  float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 32; ++group) {
      const int idx = block.qs[group] | (((block.qh[group / 4] >> (2 * (group % 4))) & 3) << 8);
      const int scale = nibble(block.scales[group / 4], group / 2 % 2);
      const float dl = d * (0.5F + static_cast<float>(scale)) * 0.25F;
      write_signed<8>(dl, grid[idx], block.signs[group], out + group * 8);
    }
  }
};

}  // namespace dsctl::gguf
