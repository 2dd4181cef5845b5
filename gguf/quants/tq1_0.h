// TQ1_0: 256 ternary values, five base-3 digits a byte.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// value = d * (digit - 1).
struct TQ1_0 {
  static constexpr DType kDType = DType::TQ1_0;
  static constexpr int kBlockElems = 256;
  struct Block {
    uint8_t qs[48];  // 5 digits a byte: 32 bytes for 160 elements, 16 bytes for 80
    uint8_t qh[4];   // 4 digits a byte: 16 elements
    PackedU16 d;     // f16
  };
  static_assert(sizeof(Block) == 54);

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    const float d = half_to_float(block.d.value());
    out = write_digits<32, 5>(block.qs, d, out);
    out = write_digits<16, 5>(block.qs + 32, d, out);
    write_digits<4, 4>(block.qh, d, out);
  }

 private:
  /// Writes the digits of n_bytes bytes, first the first digit of each; returns the end.
  template <int n_bytes, int n_digits>
  DSCTL_HD static float* write_digits(const uint8_t* bytes, float d, float* __restrict out) {
    int power = 1;  // of 3: multiplying by it modulo 256 moves a digit to the top
    for (int digit = 0; digit < n_digits; ++digit) {
      for (int i = 0; i < n_bytes; ++i) {
        const int top = (((bytes[i] * power) & 255) * 3) >> 8;
        out[i] = static_cast<float>(top - 1) * d;
      }
      out += n_bytes;
      power *= 3;
    }
    return out;
  }
};

}  // namespace dsctl::gguf
