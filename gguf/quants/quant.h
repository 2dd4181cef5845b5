// What every format header is made of. A format is a struct with
//   kDType                          its id in the file
//   kBlockElems                     elements of one block
//   Block                           the block's bytes as they lie in the file, alignment 1
//   dequantize(block, out)          writes kBlockElems floats; the IQ formats with a codebook take
//                                   it as a pointer in between, because it lives elsewhere on a GPU
// Host and device share the code; each expression is written in the order of ggml's reference, so
// that the floats are equal bit for bit on the host (on a device too, compiled with --fmad=false).
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define DSCTL_HD __host__ __device__
#else
#define DSCTL_HD
#endif

// GCC unrolls a loop of 16 before it looks for vectors and then finds none: keeping the loop makes
// Q2_K and Q6_K two to three times as fast.
#if defined(__GNUC__) && !defined(__clang__) && !defined(__CUDACC__)
#define DSCTL_KEEP_LOOP _Pragma("GCC unroll 1")
#else
#define DSCTL_KEEP_LOOP
#endif

namespace dsctl::gguf {

// Blocks are not multiples of four bytes and lie anywhere, so wider fields are bytes until read.

/// A little-endian 16-bit field of a block.
struct PackedU16 {
  uint8_t bytes[2];
  DSCTL_HD uint16_t value() const {
    uint16_t result;
    memcpy(&result, bytes, sizeof(result));
    return result;
  }
};

/// A little-endian 32-bit field of a block.
struct PackedU32 {
  uint8_t bytes[4];
  DSCTL_HD uint32_t value() const {
    uint32_t result;
    memcpy(&result, bytes, sizeof(result));
    return result;
  }
};

/// Bits [4h, 4h + 4) of `byte`.
DSCTL_HD inline int nibble(uint8_t byte, int h) {
  return (byte >> (4 * h)) & 15;
}

/// Writes scale * codes[i] for a group of n.
template <int n, typename Code>
DSCTL_HD inline void write_scaled(float scale, const Code* codes, float* __restrict out) {
  DSCTL_KEEP_LOOP
  for (int i = 0; i < n; ++i)
    out[i] = scale * static_cast<float>(codes[i]);
}

/// Writes scale * codes[i] - min for a group of n.
template <int n, typename Code>
DSCTL_HD inline void write_scaled(float scale, float min, const Code* codes,
                                  float* __restrict out) {
  DSCTL_KEEP_LOOP
  for (int i = 0; i < n; ++i)
    out[i] = scale * static_cast<float>(codes[i]) - min;
}

}  // namespace dsctl::gguf
