// Q4_K: 256 unsigned 4-bit values in 8 groups with 6-bit scales and minimums.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/k4_scales.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * scale * q - dmin * min, with scale and min of its group of 32.
struct Q4_K {
  static constexpr DType kDType = DType::Q4_K;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU16 d;         // f16
    PackedU16 dmin;      // f16
    uint8_t scales[12];  // see K4Scales
    uint8_t qs[128];     // 32 bytes for 64 elements: low nibbles first
  };
  static_assert(sizeof(Block) == 144);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const float dmin = half_to_float(block.dmin.value());
    const K4Scales scales(block.scales);
    for (int pair = 0; pair < 4; ++pair) {
      const uint8_t* qs = block.qs + pair * 32;
      float* low = out + pair * 64;
      const float scale_low = d * static_cast<float>(scales.scale[2 * pair]);
      const float min_low = dmin * static_cast<float>(scales.min[2 * pair]);
      const float scale_high = d * static_cast<float>(scales.scale[2 * pair + 1]);
      const float min_high = dmin * static_cast<float>(scales.min[2 * pair + 1]);
      for (int i = 0; i < 32; ++i)
        low[i] = scale_low * static_cast<float>(qs[i] & 15) - min_low;
      for (int i = 0; i < 32; ++i) {
        low[i + 32] = scale_high * static_cast<float>(qs[i] >> 4) - min_high;
      }
    }
  }
};

}  // namespace dsctl::gguf
