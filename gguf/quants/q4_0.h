// Q4_0: 32 signed 4-bit values and one scale.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (q - 8). Elements 0..15 are the low nibbles, 16..31 the high ones.
struct Q4_0 {
  static constexpr DType kDType = DType::Q4_0;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;  // f16
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 18);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    DSCTL_KEEP_LOOP
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>((block.qs[i] & 15) - 8) * d;
      out[i + 16] = static_cast<float>((block.qs[i] >> 4) - 8) * d;
    }
  }
};

}  // namespace dsctl::gguf
