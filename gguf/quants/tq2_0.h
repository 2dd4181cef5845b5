// TQ2_0: 256 ternary values of 2 bits.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (q - 1).
struct TQ2_0 {
  static constexpr DType kDType = DType::TQ2_0;
  static constexpr int kBlockElems = 256;
  struct Block {
    uint8_t qs[64];  // 2 halves of 32 bytes; 2 bits of a byte for each 32 elements
    PackedU16 d;     // f16
  };
  static_assert(sizeof(Block) == 66);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int group = 0; group < 8; ++group) {
      const uint8_t* qs = block.qs + group / 4 * 32;
      const int shift = group % 4 * 2;
      for (int i = 0; i < 32; ++i) {
        out[group * 32 + i] = static_cast<float>(((qs[i] >> shift) & 3) - 1) * d;
      }
    }
  }
};

}  // namespace dsctl::gguf
