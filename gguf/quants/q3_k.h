// Q3_K: 256 signed 3-bit values in 16 groups with 6-bit scales.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (scale - 32) * (q - 4), q of two low bits in qs and a high bit in hmask.
struct Q3_K {
  static constexpr DType kDType = DType::Q3_K;
  static constexpr int kBlockElems = 256;
  struct Block {
    uint8_t hmask[32];   // bit i / 32 of byte i % 32: bit 2 of element i
    uint8_t qs[64];      // low bits, as in Q2_K
    uint8_t scales[12];  // 8 bytes of low nibbles, then 4 bytes of high bit pairs
    PackedU16 d;         // f16
  };
  static_assert(sizeof(Block) == 110);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 16; ++group) {
      const int low = nibble(block.scales[group % 8], group / 8);
      const int high = (block.scales[8 + group % 4] >> (2 * (group / 4))) & 3;
      const float scale = d * static_cast<float>((low | (high << 4)) - 32);
      const uint8_t* qs = block.qs + group / 8 * 32 + group % 2 * 16;
      const uint8_t* hmask = block.hmask + group % 2 * 16;
      const int shift = group % 8 / 2 * 2;
      const int bit = group / 2;
      for (int i = 0; i < 16; ++i) {
        const int q = ((qs[i] >> shift) & 3) | (((hmask[i] >> bit) & 1) << 2);
        out[group * 16 + i] = scale * static_cast<float>(q - 4);
      }
    }
  }
};

}  // namespace dsctl::gguf
