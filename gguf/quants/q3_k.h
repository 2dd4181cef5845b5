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
    int8_t q[128];  // codes of a half, less 4
    for (int half = 0; half < 2; ++half) {
      const uint8_t* qs = block.qs + half * 32;
      const int bit = 1 << (half * 4);
      for (int i = 0; i < 32; ++i) {
        const int high = block.hmask[i];
        q[i] = static_cast<int8_t>((qs[i] & 3) - ((high & bit) != 0 ? 0 : 4));
        q[i + 32] = static_cast<int8_t>(((qs[i] >> 2) & 3) - ((high & (bit << 1)) != 0 ? 0 : 4));
        q[i + 64] = static_cast<int8_t>(((qs[i] >> 4) & 3) - ((high & (bit << 2)) != 0 ? 0 : 4));
        q[i + 96] = static_cast<int8_t>((qs[i] >> 6) - ((high & (bit << 3)) != 0 ? 0 : 4));
      }
      for (int group = 0; group < 8; ++group) {
        const int k = half * 8 + group;
        const int low = nibble(block.scales[group], half);
        const int high = (block.scales[8 + k % 4] >> (2 * (k / 4))) & 3;
        const float scale = d * static_cast<float>((low | (high << 4)) - 32);
        write_scaled<16>(scale, q + group * 16, out + k * 16);
      }
    }
  }
};

}  // namespace dsctl::gguf
