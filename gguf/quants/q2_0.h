// Q2_0: 64 2-bit values and one scale.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (q - 1), four elements a byte.
struct Q2_0 {
  static constexpr DType kDType = DType::Q2_0;
  static constexpr int kBlockElems = 64;
  struct Block {
    PackedU16 d;  // f16
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 18);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int i = 0; i < 64; ++i) {
      out[i] = static_cast<float>(((block.qs[i / 4] >> (2 * (i % 4))) & 3) - 1) * d;
    }
  }
};

}  // namespace dsctl::gguf
