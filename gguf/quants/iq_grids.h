// The codebooks of the IQ formats, expanded: one row of small integers for every index.
#pragma once

#include <cstdint>

namespace dsctl::gguf {

/// All grids. Plain arrays, so that a device copy is one memcpy; kernels take the grid as a
/// pointer.
struct IqGrids {
  alignas(64) uint8_t iq2_xxs[256][8];
  alignas(64) uint8_t iq2_xs[512][8];
  alignas(64) uint8_t iq2_s[1024][8];
  alignas(64) uint8_t iq3_xxs[256][4];
  alignas(64) uint8_t iq3_s[512][4];
  alignas(64) int8_t iq1_s[2048][8];  // iq1_m has the same
};

/// The grids, made at compile time (about 36 KB).
const IqGrids& iq_grids();

}  // namespace dsctl::gguf
