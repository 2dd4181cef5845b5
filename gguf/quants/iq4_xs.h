// IQ4_XS: 256 4-bit codes of the IQ4_NL table in 8 groups with 6-bit scales.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/iq4_nl.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (scale - 32) * table[q], with the scale of its group of 32.
struct IQ4_XS {
  static constexpr DType kDType = DType::IQ4_XS;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;          // f16
    PackedU16 scales_h;   // bits 2g: high bits of the scale of group g
    uint8_t scales_l[4];  // nibbles: low bits of the scales
    uint8_t qs[128];      // 16 bytes a group, as in IQ4_NL
  };
  static_assert(sizeof(Block) == 136);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const int scales_h = block.scales_h.value();
    for (int group = 0; group < 8; ++group) {
      const int scale =
          nibble(block.scales_l[group / 2], group % 2) | (((scales_h >> (2 * group)) & 3) << 4);
      const float dl = d * static_cast<float>(scale - 32);
      const uint8_t* qs = block.qs + group * 16;
      float* to = out + group * 32;
      for (int i = 0; i < 16; ++i) {
        to[i] = dl * static_cast<float>(iq4_value(qs[i] & 15));
        to[i + 16] = dl * static_cast<float>(iq4_value(qs[i] >> 4));
      }
    }
  }
};

}  // namespace dsctl::gguf
