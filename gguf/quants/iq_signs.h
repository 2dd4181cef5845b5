// The signs that the IQ2 and IQ3 formats keep beside their grid indices.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// The sign byte of 7 stored bits: the eighth makes the number of minus signs even.
DSCTL_HD inline uint32_t even_signs(uint32_t bits7) {
  uint32_t parity = bits7 ^ (bits7 >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return bits7 | ((parity & 1) << 7);
}

/// Writes n values scale * grid[e], negated where bit e of `signs` is set.
template <int n>
DSCTL_HD inline void write_signed(float scale, const uint8_t* grid, uint32_t signs,
                                  float* __restrict out) {
  for (int e = 0; e < n; ++e) {
    const int value = grid[e];
    out[e] = scale * static_cast<float>((signs >> e) & 1 ? -value : value);
  }
}

}  // namespace dsctl::gguf
