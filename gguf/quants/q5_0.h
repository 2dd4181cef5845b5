// Q5_0: 32 signed 5-bit values and one scale.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (q - 16). Four bits of q lie as in Q4_0, the fifth is bit i of qh.
struct Q5_0 {
  static constexpr DType kDType = DType::Q5_0;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;   // f16
    PackedU32 qh;  // bit 4 of every element
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 22);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    const uint32_t qh = block.qh.value();
    for (int i = 0; i < 16; ++i) {
      const int low = (block.qs[i] & 15) | static_cast<int>(((qh >> i) & 1) << 4);
      const int high = (block.qs[i] >> 4) | static_cast<int>(((qh >> (i + 16)) & 1) << 4);
      out[i] = static_cast<float>(low - 16) * d;
      out[i + 16] = static_cast<float>(high - 16) * d;
    }
  }
};

}  // namespace dsctl::gguf
