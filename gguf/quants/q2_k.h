// Q2_K: 256 unsigned 2-bit values in 16 groups with 4-bit scales and minimums.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * scale * q - dmin * min, with scale and min of its group of 16.
struct Q2_K {
  static constexpr DType kDType = DType::Q2_K;
  static constexpr int kBlockElems = 256;
  struct Block {
    uint8_t scales[16];  // low nibble scale, high nibble min
    uint8_t qs[64];      // 2 halves of 32 bytes; 2 bits of a byte for each 32 elements
    PackedU16 d;         // f16
    PackedU16 dmin;      // f16
  };
  static_assert(sizeof(Block) == 84);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const float dmin = half_to_float(block.dmin.value());
    for (int group = 0; group < 16; ++group) {
      const float scale = d * static_cast<float>(block.scales[group] & 15);
      const float min = dmin * static_cast<float>(block.scales[group] >> 4);
      const uint8_t* qs = block.qs + group / 8 * 32 + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      for (int i = 0; i < 16; ++i) {
        out[group * 16 + i] = scale * static_cast<float>((qs[i] >> shift) & 3) - min;
      }
    }
  }
};

}  // namespace dsctl::gguf
