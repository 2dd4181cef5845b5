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
    uint8_t q[128];  // codes of a half
    for (int half = 0; half < 2; ++half) {
      const uint8_t* qs = block.qs + half * 32;
      for (int i = 0; i < 32; ++i) {
        q[i] = qs[i] & 3;
        q[i + 32] = (qs[i] >> 2) & 3;
        q[i + 64] = (qs[i] >> 4) & 3;
        q[i + 96] = qs[i] >> 6;
      }
      for (int group = 0; group < 8; ++group) {
        const uint8_t packed = block.scales[half * 8 + group];
        const float scale = d * static_cast<float>(packed & 15);
        const float min = dmin * static_cast<float>(packed >> 4);
        write_scaled<16>(scale, min, q + group * 16, out + half * 128 + group * 16);
      }
    }
  }
};

}  // namespace dsctl::gguf
