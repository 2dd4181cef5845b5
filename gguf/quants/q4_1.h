// Q4_1: 32 unsigned 4-bit values, a scale and a minimum.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * q + m. Elements 0..15 are the low nibbles, 16..31 the high ones.
struct Q4_1 {
  static constexpr DType kDType = DType::Q4_1;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;  // f16
    PackedU16 m;  // f16
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 20);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const float m = half_to_float(block.m.value());
    DSCTL_KEEP_LOOP
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>(block.qs[i] & 15) * d + m;
      out[i + 16] = static_cast<float>(block.qs[i] >> 4) * d + m;
    }
  }
};

}  // namespace dsctl::gguf
