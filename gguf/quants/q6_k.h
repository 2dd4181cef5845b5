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
    for (int group = 0; group < 16; ++group) {
      const int half = group / 8;
      const int quarter = group % 8 / 2;
      const uint8_t* ql = block.ql + half * 64 + quarter % 2 * 32 + group % 2 * 16;
      const uint8_t* qh = block.qh + half * 32 + group % 2 * 16;
      const int ql_shift = quarter / 2 * 4;
      const int qh_shift = quarter * 2;
      const float scale = d * static_cast<float>(block.scales[group]);
      for (int i = 0; i < 16; ++i) {
        const int q = ((ql[i] >> ql_shift) & 15) | (((qh[i] >> qh_shift) & 3) << 4);
        out[group * 16 + i] = scale * static_cast<float>(q - 32);
      }
    }
  }
};

}  // namespace dsctl::gguf
