// Q8_1: Q8_0 with the sum of the block beside it; a format of activations, never of weights.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * q.
struct Q8_1 {
  static constexpr DType kDType = DType::Q8_1;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;  // f16
    PackedU16 s;  // f16, d * sum of qs: for dot products with a minimum
    int8_t qs[32];
  };
  static_assert(sizeof(Block) == 36);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int i = 0; i < 32; ++i)
      out[i] = static_cast<float>(block.qs[i]) * d;
  }
};

}  // namespace dsctl::gguf
