// IQ3_S: 256 values in groups of 4 from a grid of 512 entries; 3.44 bits an element.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq_signs.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (1 + 2 * scale) * grid * sign, with one 4-bit scale for 32 elements.
struct IQ3_S {
  static constexpr DType kDType = DType::IQ3_S;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;     // f16
    uint8_t qs[64];  // low 8 bits of the grid index of 4 elements
    uint8_t qh[8];   // bit g % 8 of byte g / 8: bit 8 of the index of group g
    uint8_t signs[32];
    uint8_t scales[4];  // nibbles
  };
  static_assert(sizeof(Block) == 110);

  DSCTL_HD static void dequantize(const Block& block, const uint8_t (*grid)[4],
                                  float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 64; ++group) {
      const int idx = block.qs[group] | (((block.qh[group / 8] >> (group % 8)) & 1) << 8);
      const int scale = nibble(block.scales[group / 16], group / 8 % 2);
      const float dl = d * static_cast<float>(1 + 2 * scale);
      write_signed<4>(dl, grid[idx],
                      static_cast<uint32_t>(nibble(block.signs[group / 2], group % 2)),
                      out + group * 4);
    }
  }
};

}  // namespace dsctl::gguf
