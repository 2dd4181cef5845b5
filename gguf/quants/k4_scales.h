// The packing of scales and minimums that Q4_K and Q5_K share.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// Scales and minimums of the 8 groups of Q4_K and Q5_K: twelve bytes hold 8 pairs of 6 bits.
struct K4Scales {
  uint8_t scale[8];
  uint8_t min[8];

  DSCTL_HD explicit K4Scales(const uint8_t (&packed)[12]) {
    for (int j = 0; j < 4; ++j) {
      scale[j] = packed[j] & 63;
      min[j] = packed[j + 4] & 63;
      scale[j + 4] = static_cast<uint8_t>((packed[j + 8] & 15) | ((packed[j] >> 6) << 4));
      min[j + 4] = static_cast<uint8_t>((packed[j + 8] >> 4) | ((packed[j + 4] >> 6) << 4));
    }
  }
};

}  // namespace dsctl::gguf
