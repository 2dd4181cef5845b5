// NVFP4: 64 4-bit floats (E2M1) in groups of 16 with E4M3 scales. The tensor may have a companion
// `<base>.scale`, which multiplies results of the whole tensor; it is no part of the format.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/mxfp4.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// Half the value of an unsigned E4M3 (bias 7); codes 0 and 0x7f are zero.
DSCTL_HD inline float ue4m3_half(uint8_t code) {
  if (code == 0 || code == 0x7f) return 0.0F;
  const int exponent = (code >> 3) & 15;
  const int mantissa = code & 7;
  if (exponent == 0) return static_cast<float>(mantissa) * 0x1p-10F;
  // (1 + mantissa / 8) * 2^(exponent - 8), put together from its bits.
  return float_from_bits((static_cast<uint32_t>(exponent - 8 + 127) << 23) |
                         (static_cast<uint32_t>(mantissa) << 20));
}

/// value = scale * q, with the scale of its group of 16.
struct NVFP4 {
  static constexpr DType kDType = DType::NVFP4;
  static constexpr int kBlockElems = 64;
  struct Block {
    uint8_t scales[4];  // unsigned E4M3
    uint8_t qs[32];     // 8 bytes a group: low nibbles first
  };
  static_assert(sizeof(Block) == 36);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    for (int group = 0; group < 4; ++group) {
      const float d = ue4m3_half(block.scales[group]);
      const uint8_t* qs = block.qs + group * 8;
      float* to = out + group * 16;
      for (int i = 0; i < 8; ++i) {
        to[i] = static_cast<float>(fp4_doubled_value(qs[i] & 15)) * d;
        to[i + 8] = static_cast<float>(fp4_doubled_value(qs[i] >> 4)) * d;
      }
    }
  }
};

}  // namespace dsctl::gguf
