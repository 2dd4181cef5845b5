// Q8_0: 32 signed bytes and one scale.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * q.
struct Q8_0 {
  static constexpr DType kDType = DType::Q8_0;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;  // f16
    int8_t qs[32];
  };
  static_assert(sizeof(Block) == 34);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int i = 0; i < 32; ++i)
      out[i] = static_cast<float>(block.qs[i]) * d;
  }
};

}  // namespace dsctl::gguf
