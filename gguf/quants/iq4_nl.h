// IQ4_NL: 32 4-bit codes of a non-linear table and one scale.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// The 16 values of the non-linear 4-bit formats, by code.
DSCTL_HD inline int iq4_value(int code) {
  static constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
  return kValues[code];
}

/// value = d * table[q]. Nibbles lie as in Q4_0.
struct IQ4_NL {
  static constexpr DType kDType = DType::IQ4_NL;
  static constexpr int kBlockElems = 32;
  struct Block {
    PackedU16 d;  // f16
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 18);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    for (int i = 0; i < 16; ++i) {
      out[i] = d * static_cast<float>(iq4_value(block.qs[i] & 15));
      out[i + 16] = d * static_cast<float>(iq4_value(block.qs[i] >> 4));
    }
  }
};

}  // namespace dsctl::gguf
