// Q8_K: 256 signed bytes with an f32 scale; a format of activations for products with K and IQ
// types.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * q.
struct Q8_K {
  static constexpr DType kDType = DType::Q8_K;
  static constexpr int kBlockElems = 256;
  struct Block {
    PackedU32 d;  // f32
    int8_t qs[256];
    PackedU16 bsums[16];  // int16, the sums of 16 elements each
  };
  static_assert(sizeof(Block) == 292);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = float_from_bits(block.d.value());
    for (int i = 0; i < 256; ++i)
      out[i] = d * static_cast<float>(block.qs[i]);
  }
};

}  // namespace dsctl::gguf
