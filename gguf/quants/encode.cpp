#include "gguf/quants/encode.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <cstring>
#include <string>

#include "gguf/error.h"
#include "gguf/quants/half.h"
#include "gguf/quants/k4_scales.h"
#include "gguf/quants/plain.h"
#include "gguf/quants/q4_0.h"
#include "gguf/quants/q4_1.h"
#include "gguf/quants/q4_k.h"
#include "gguf/quants/q5_0.h"
#include "gguf/quants/q5_1.h"
#include "gguf/quants/q5_k.h"
#include "gguf/quants/q6_k.h"
#include "gguf/quants/q8_0.h"

namespace dsctl::gguf {
namespace {

PackedU16 pack(uint16_t value) {
  PackedU16 packed;
  std::memcpy(packed.bytes, &value, sizeof(value));
  return packed;
}

PackedU16 pack_half(float value) {
  return pack(float_to_half(value));
}

/// `value` cut to an integer in [0, max]; NaN gives 0.
int cut(float value, int max) {
  if (!(value > 0.0F)) return 0;
  return value >= static_cast<float>(max) ? max : static_cast<int>(value);
}

/// `value` rounded to the nearest integer in [min, max]; NaN gives min.
int nearest(float value, int min, int max) {
  if (!(value > static_cast<float>(min))) return min;
  return value >= static_cast<float>(max) ? max : static_cast<int>(std::lrint(value));
}

float inverse(float value) {
  return value == 0.0F ? 0.0F : 1.0F / value;
}

/// The first element of largest magnitude, with its sign.
float extremum(const float* x, int n) {
  return *std::max_element(x, x + n, [](float a, float b) { return std::abs(a) < std::abs(b); });
}

/// Packs 32 codes as the old formats do: nibbles into `qs`; bit 4 of each is returned.
uint32_t pack_nibbles(const int (&codes)[32], uint8_t (&qs)[16]) {
  uint32_t high = 0;
  for (int i = 0; i < 32; ++i)
    high |= static_cast<uint32_t>((codes[i] >> 4) & 1) << i;
  for (int i = 0; i < 16; ++i) {
    qs[i] = static_cast<uint8_t>((codes[i] & 15) | ((codes[i + 16] & 15) << 4));
  }
  return high;
}

/// Codes of a format symmetric around `max + 1` halves: the extremum gets the lowest code.
float symmetric_codes(const float* x, int half_range, int (&codes)[32]) {
  const float d = extremum(x, 32) / -static_cast<float>(half_range);
  const float inverse_d = inverse(d);
  for (int i = 0; i < 32; ++i) {
    codes[i] = cut(x[i] * inverse_d + (static_cast<float>(half_range) + 0.5F), 2 * half_range - 1);
  }
  return d;
}

struct Range {
  float d = 0;
  float min = 0;
};

/// Codes of a format with a minimum, from 0 to `max`.
Range ranged_codes(const float* x, int max, int (&codes)[32]) {
  const auto [low, high] = std::minmax_element(x, x + 32);
  const Range range{(*high - *low) / static_cast<float>(max), *low};
  const float inverse_d = inverse(range.d);
  for (int i = 0; i < 32; ++i)
    codes[i] = cut((x[i] - range.min) * inverse_d + 0.5F, max);
  return range;
}

void quantize(const float* x, F32::Block& block) {
  std::memcpy(block.bytes, x, sizeof(*x));
}

void quantize(const float* x, F16::Block& block) {
  const uint16_t bits = float_to_half(*x);
  std::memcpy(block.bytes, &bits, sizeof(bits));
}

void quantize(const float* x, BF16::Block& block) {
  const uint16_t bits = float_to_bfloat(*x);
  std::memcpy(block.bytes, &bits, sizeof(bits));
}

void quantize(const float* x, Q4_0::Block& block) {
  int codes[32];
  block.d = pack_half(symmetric_codes(x, 8, codes));
  pack_nibbles(codes, block.qs);
}

void quantize(const float* x, Q5_0::Block& block) {
  int codes[32];
  block.d = pack_half(symmetric_codes(x, 16, codes));
  const uint32_t high = pack_nibbles(codes, block.qs);
  std::memcpy(block.qh.bytes, &high, sizeof(high));
}

void quantize(const float* x, Q4_1::Block& block) {
  int codes[32];
  const Range range = ranged_codes(x, 15, codes);
  block.d = pack_half(range.d);
  block.m = pack_half(range.min);
  pack_nibbles(codes, block.qs);
}

void quantize(const float* x, Q5_1::Block& block) {
  int codes[32];
  const Range range = ranged_codes(x, 31, codes);
  block.d = pack_half(range.d);
  block.m = pack_half(range.min);
  const uint32_t high = pack_nibbles(codes, block.qs);
  std::memcpy(block.qh.bytes, &high, sizeof(high));
}

void quantize(const float* x, Q8_0::Block& block) {
  const float d = std::abs(extremum(x, 32)) / 127.0F;
  const float inverse_d = inverse(d);
  block.d = pack_half(d);
  for (int i = 0; i < 32; ++i) {
    // roundf: half away from zero, as the reference.
    block.qs[i] = static_cast<int8_t>(nearest(std::round(x[i] * inverse_d), -127, 127));
  }
}

/// What Q4_K and Q5_K share: 8 groups of 32 with 6-bit scales and minimums under two f16.
struct K4Encoding {
  PackedU16 d;
  PackedU16 dmin;
  uint8_t scales[12];
  uint8_t codes[256];
};

void pack_k4_scales(const int (&scale)[8], const int (&min)[8], uint8_t (&packed)[12]) {
  for (int j = 0; j < 4; ++j) {
    packed[j] = static_cast<uint8_t>(scale[j] | ((scale[j + 4] >> 4) << 6));
    packed[j + 4] = static_cast<uint8_t>(min[j] | ((min[j + 4] >> 4) << 6));
    packed[j + 8] = static_cast<uint8_t>((scale[j + 4] & 15) | ((min[j + 4] & 15) << 4));
  }
}

K4Encoding encode_k4(const float* x, int max_code) {
  float scales[8];
  float mins[8];  // what is subtracted: never negative
  for (int group = 0; group < 8; ++group) {
    const auto [low, high] = std::minmax_element(x + group * 32, x + group * 32 + 32);
    mins[group] = std::max(0.0F, -*low);
    scales[group] = std::max(0.0F, (*high + mins[group]) / static_cast<float>(max_code));
  }
  K4Encoding encoding;
  encoding.d = pack_half(*std::max_element(scales, scales + 8) / 63.0F);
  encoding.dmin = pack_half(*std::max_element(mins, mins + 8) / 63.0F);
  const float d = half_to_float(encoding.d.value());
  const float dmin = half_to_float(encoding.dmin.value());
  int scale[8];
  int min[8];
  for (int group = 0; group < 8; ++group) {
    scale[group] = nearest(scales[group] * inverse(d), 0, 63);
    min[group] = nearest(mins[group] * inverse(dmin), 0, 63);
    const float step = inverse(d * static_cast<float>(scale[group]));
    const float offset = dmin * static_cast<float>(min[group]);
    for (int i = group * 32; i < group * 32 + 32; ++i) {
      encoding.codes[i] = static_cast<uint8_t>(nearest((x[i] + offset) * step, 0, max_code));
    }
  }
  pack_k4_scales(scale, min, encoding.scales);
  return encoding;
}

/// The low nibbles of 256 codes in the order of Q4_K and Q5_K.
void pack_k_nibbles(const uint8_t (&codes)[256], uint8_t (&qs)[128]) {
  for (int i = 0; i < 128; ++i) {
    const int low = i / 32 * 64 + i % 32;
    qs[i] = static_cast<uint8_t>((codes[low] & 15) | ((codes[low + 32] & 15) << 4));
  }
}

void quantize(const float* x, Q4_K::Block& block) {
  const K4Encoding encoding = encode_k4(x, 15);
  block.d = encoding.d;
  block.dmin = encoding.dmin;
  std::memcpy(block.scales, encoding.scales, sizeof(block.scales));
  pack_k_nibbles(encoding.codes, block.qs);
}

void quantize(const float* x, Q5_K::Block& block) {
  const K4Encoding encoding = encode_k4(x, 31);
  block.d = encoding.d;
  block.dmin = encoding.dmin;
  std::memcpy(block.scales, encoding.scales, sizeof(block.scales));
  pack_k_nibbles(encoding.codes, block.qs);
  std::memset(block.qh, 0, sizeof(block.qh));
  for (int i = 0; i < 256; ++i) {
    block.qh[i % 32] |= static_cast<uint8_t>((encoding.codes[i] >> 4) << (i / 32));
  }
}

void quantize(const float* x, Q6_K::Block& block) {
  float scales[16];
  for (int group = 0; group < 16; ++group)
    scales[group] = extremum(x + group * 16, 16) / -32.0F;
  block.d = pack_half(extremum(scales, 16) / -128.0F);
  const float d = half_to_float(block.d.value());
  std::memset(block.ql, 0, sizeof(block.ql));
  std::memset(block.qh, 0, sizeof(block.qh));
  for (int i = 0; i < 256; ++i) {
    const int group = i / 16;
    block.scales[group] = static_cast<int8_t>(nearest(scales[group] * inverse(d), -128, 127));
    const float step = inverse(d * static_cast<float>(block.scales[group]));
    const int code = nearest(x[i] * step, -32, 31) + 32;
    const int half = i / 128;
    const int quarter = i % 128 / 32;
    block.ql[half * 64 + quarter % 2 * 32 + i % 32] |=
        static_cast<uint8_t>((code & 15) << (4 * (quarter / 2)));
    block.qh[half * 32 + i % 32] |= static_cast<uint8_t>((code >> 4) << (2 * quarter));
  }
}

template <typename Format>
void quantize_blocks(const float* src, std::byte* dst, int64_t n_elems) {
  assert(n_elems % Format::kBlockElems == 0);
  auto* blocks = reinterpret_cast<typename Format::Block*>(dst);
  for (int64_t i = 0; i < n_elems / Format::kBlockElems; ++i) {
    quantize(src + i * Format::kBlockElems, blocks[i]);
  }
}

using RowEncoder = void (*)(const float*, std::byte*, int64_t);

RowEncoder encoder_of(DType dtype) {
  // A list of what we write, so an exception to switches without default.
  switch (dtype) {
    case DType::F32:
      return quantize_blocks<F32>;
    case DType::F16:
      return quantize_blocks<F16>;
    case DType::BF16:
      return quantize_blocks<BF16>;
    case DType::Q4_0:
      return quantize_blocks<Q4_0>;
    case DType::Q4_1:
      return quantize_blocks<Q4_1>;
    case DType::Q5_0:
      return quantize_blocks<Q5_0>;
    case DType::Q5_1:
      return quantize_blocks<Q5_1>;
    case DType::Q8_0:
      return quantize_blocks<Q8_0>;
    case DType::Q4_K:
      return quantize_blocks<Q4_K>;
    case DType::Q5_K:
      return quantize_blocks<Q5_K>;
    case DType::Q6_K:
      return quantize_blocks<Q6_K>;
    default:
      return nullptr;
  }
}

}  // namespace

bool can_quantize(DType dtype) {
  return encoder_of(dtype) != nullptr;
}

void quantize_row(DType dtype, const float* src, std::byte* dst, int64_t n_elems) {
  const RowEncoder encode = encoder_of(dtype);
  if (encode == nullptr) {
    throw Error("can't quantise to " + std::string(dtype_info(dtype).name) +
                ": there is no encoder for it");
  }
  encode(src, dst, n_elems);
}

}  // namespace dsctl::gguf
