// Q5_1: 32 unsigned 5-bit values, a scale and a minimum.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * q + m. Four bits of q lie as in Q4_1, the fifth is bit i of qh.
struct Q5_1 {
  static constexpr DType kDType = DType::Q5_1;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;   // f16
    PackedU16 m;   // f16
    PackedU32 qh;  // bit 4 of every element
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 24);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const float m = half_to_float(block.m.value());
    const uint32_t qh = block.qh.value();
    for (int i = 0; i < 16; ++i) {
      const int low = (block.qs[i] & 15) | static_cast<int>(((qh >> i) & 1) << 4);
      const int high = (block.qs[i] >> 4) | static_cast<int>(((qh >> (i + 16)) & 1) << 4);
      out[i] = static_cast<float>(low) * d + m;
      out[i + 16] = static_cast<float>(high) * d + m;
    }
  }
};

}  // namespace dsctl::gguf
