// Q5_K: 256 unsigned 5-bit values in 8 groups with 6-bit scales and minimums.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/k4_scales.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * scale * q - dmin * min, with scale and min of its group of 32.
struct Q5_K {
  static constexpr DType kDType = DType::Q5_K;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;         // f16
    PackedU16 dmin;      // f16
    uint8_t scales[12];  // see K4Scales
    uint8_t qh[32];      // bit i / 32 of byte i % 32: bit 4 of element i
    uint8_t qs[128];     // low bits, as in Q4_K
  };
  static_assert(sizeof(Block) == 176);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const float dmin = half_to_float(block.dmin.value());
    const K4Scales scales(block.scales);
    uint8_t q[64];  // codes of a pair of groups
    for (int pair = 0; pair < 4; ++pair) {
      const uint8_t* qs = block.qs + pair * 32;
      const int bit = 1 << (2 * pair);
      for (int i = 0; i < 32; ++i) {
        const int high = block.qh[i];
        q[i] = static_cast<uint8_t>((qs[i] & 15) + ((high & bit) != 0 ? 16 : 0));
        q[i + 32] = static_cast<uint8_t>((qs[i] >> 4) + ((high & (bit << 1)) != 0 ? 16 : 0));
      }
      for (int group = 0; group < 2; ++group) {
        const float scale = d * static_cast<float>(scales.scale[2 * pair + group]);
        const float min = dmin * static_cast<float>(scales.min[2 * pair + group]);
        write_scaled<32>(scale, min, q + group * 32, out + pair * 64 + group * 32);
      }
    }
  }
};

}  // namespace dsctl::gguf
