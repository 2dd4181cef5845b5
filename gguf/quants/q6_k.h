// Q6_K: 256 signed 6-bit values in 16 groups with 8-bit scales.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * scale * (q - 32), with the scale of its group of 16.
struct Q6_K {
  static constexpr DType kDType = DType::Q6_K;
  static constexpr int kBlockElems = 256;
  struct Block {
    uint8_t ql[128];  // low 4 bits: 64 bytes a half, quarters 0 and 1 low nibbles, 2 and 3 high
    uint8_t qh[64];   // high 2 bits: 32 bytes a half, bits 2g of a byte for quarter g
    int8_t scales[16];
    PackedU16 d;  // f16
  };
  static_assert(sizeof(Block) == 210);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    int8_t q[128];  // codes of a half, less 32
    for (int half = 0; half < 2; ++half) {
      const uint8_t* ql = block.ql + half * 64;
      const uint8_t* qh = block.qh + half * 32;
      for (int i = 0; i < 32; ++i) {
        q[i] = static_cast<int8_t>(((ql[i] & 15) | ((qh[i] & 3) << 4)) - 32);
        q[i + 32] = static_cast<int8_t>(((ql[i + 32] & 15) | (((qh[i] >> 2) & 3) << 4)) - 32);
        q[i + 64] = static_cast<int8_t>(((ql[i] >> 4) | (((qh[i] >> 4) & 3) << 4)) - 32);
        q[i + 96] = static_cast<int8_t>(((ql[i + 32] >> 4) | ((qh[i] >> 6) << 4)) - 32);
      }
      for (int group = 0; group < 8; ++group) {
        const float scale = d * static_cast<float>(block.scales[half * 8 + group]);
        write_scaled<16>(scale, q + group * 16, out + half * 128 + group * 16);
      }
    }
  }
};

}  // namespace dsctl::gguf
