// Q1_0: 128 signs and one scale.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = bit ? d : -d.
struct Q1_0 {
  static constexpr DType kDType = DType::Q1_0;
  static constexpr int kBlockElems = 128;
  struct Block {
    PackedU16 d;  // f16
    uint8_t bits[16];
  };
  static_assert(sizeof(Block) == 18);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int i = 0; i < 128; ++i)
      out[i] = ((block.bits[i / 8] >> (i % 8)) & 1) != 0 ? d : -d;
  }
};

}  // namespace dsctl::gguf
