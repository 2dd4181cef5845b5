// f16 and bf16 to f32 and back, without hardware support and without a branch, so that loops over
// them vectorise. Exact, subnormals included; f32 to 16 bits rounds to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// The f32 with these bits, and the bits of an f32.
DSCTL_HD inline float float_from_bits(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof(value));
  return value;
}
DSCTL_HD inline uint32_t bits_from_float(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof(bits));
  return bits;
}

/// f16 (IEEE binary16) to f32. Infinities and NaNs (made quiet) are kept.
DSCTL_HD inline float half_to_float(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000U) << 16;
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffU) << 13;
  // Normal: the exponent field is rebiased in two exact steps, +224 and then * 2^-112, so that
  // exponent 31 (infinity, NaN) lands on 255 by itself.
  const float normal = float_from_bits(magnitude + (224U << 23)) * 0x1p-112F;
  // Subnormal: put the mantissa under 0.5 and take 0.5 away, which leaves mantissa * 2^-24.
  const float subnormal = float_from_bits((magnitude >> 13) | (126U << 23)) - 0.5F;
  // Chosen by a mask: a conditional would keep compilers from vectorising a loop over this.
  const uint32_t is_subnormal = 0U - static_cast<uint32_t>(magnitude < (1U << 23));
  return float_from_bits(sign | (bits_from_float(subnormal) & is_subnormal) |
                         (bits_from_float(normal) & ~is_subnormal));
}

/// f32 to f16, to nearest even; too large becomes infinity, NaN stays a quiet NaN.
DSCTL_HD inline uint16_t float_to_half(float value) {
  const uint32_t bits = bits_from_float(value);
  const uint32_t sign = (bits >> 16) & 0x8000U;
  const uint32_t magnitude = bits & 0x7fffffffU;
  if (magnitude > 0x7f800000U) {
    return static_cast<uint16_t>(sign | 0x7e00U | ((magnitude >> 13) & 0x3ffU));
  }
  if (magnitude >= 0x47800000U) return static_cast<uint16_t>(sign | 0x7c00U);  // 65536 and more
  if (magnitude < 0x38800000U) {
    // Below 2^-14: adding 0.5 aligns the mantissa to steps of 2^-24 and rounds it to even.
    const uint32_t aligned = bits_from_float(float_from_bits(magnitude) + 0.5F);
    return static_cast<uint16_t>(sign | (aligned - 0x3f000000U));
  }
  // Rebias by -112 and round away 13 bits to even; the carry may reach infinity, as it should.
  const uint32_t odd = (magnitude >> 13) & 1U;
  return static_cast<uint16_t>(sign | ((magnitude - (112U << 23) + 0xfffU + odd) >> 13));
}

/// bf16 to f32.
DSCTL_HD inline float bfloat_to_float(uint16_t bfloat) {
  return float_from_bits(static_cast<uint32_t>(bfloat) << 16);
}

/// f32 to bf16, to nearest even; NaN stays a quiet NaN.
DSCTL_HD inline uint16_t float_to_bfloat(float value) {
  const uint32_t bits = bits_from_float(value);
  if ((bits & 0x7fffffffU) > 0x7f800000U) return static_cast<uint16_t>((bits >> 16) | 0x40U);
  return static_cast<uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

}  // namespace dsctl::gguf
