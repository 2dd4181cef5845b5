// MXFP4: 32 4-bit floats (E2M1) and a power-of-two scale (E8M0), of the OCP microscaling formats.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// Twice the value of an E2M1 code: integers, so that the scale is halved instead.
DSCTL_HD inline int fp4_doubled_value(int code) {
  static constexpr int8_t kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  return kValues[code];
}

/// 2^(exponent - 128): half of an E8M0 scale. The two smallest are subnormal in f32.
DSCTL_HD inline float e8m0_half(uint8_t exponent) {
  return float_from_bits(exponent < 2 ? 0x00200000U << exponent
                                      : static_cast<uint32_t>(exponent - 1) << 23);
}

/// value = 2^(e - 127) * q, q an E2M1 float. Nibbles lie as in Q4_0. There are no NaNs.
struct MXFP4 {
  static constexpr DType kDType = DType::MXFP4;
  static constexpr int kBlockElems = 32;
  struct Block {
    uint8_t e;  // E8M0
    uint8_t qs[16];
  };
  static_assert(sizeof(Block) == 17);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = e8m0_half(block.e);
    for (int i = 0; i < 16; ++i) {
      out[i] = static_cast<float>(fp4_doubled_value(block.qs[i] & 15)) * d;
      out[i + 16] = static_cast<float>(fp4_doubled_value(block.qs[i] >> 4)) * d;
    }
  }
};

}  // namespace dsctl::gguf
