// The types that are no blocks: floats and integers.
#pragma once

#include <cstdint>

#include "gguf/dtype.h"
#include "gguf/quants/half.h"
#include "gguf/quants/quant.h"

namespace dsctl::gguf {

/// A type that is one scalar an element: read, then converted by `Convert`.
template <DType dtype, typename T, typename Convert>
struct PlainFormat {
  static constexpr DType kDType = dtype;
  static constexpr int kBlockElems = 1;
  struct Block {
    uint8_t bytes[sizeof(T)];
  };

  DSCTL_HD static void dequantize(const Block& block, float* __restrict out) {
    T value;
    memcpy(&value, block.bytes, sizeof(value));
    *out = Convert()(value);
  }
};

/// Numbers: rounded to f32 where they have more digits.
struct FromNumber {
  template <typename T>
  DSCTL_HD float operator()(T value) const {
    return static_cast<float>(value);
  }
};
struct FromHalf {
  DSCTL_HD float operator()(uint16_t bits) const { return half_to_float(bits); }
};
struct FromBfloat {
  DSCTL_HD float operator()(uint16_t bits) const { return bfloat_to_float(bits); }
};

using F32 = PlainFormat<DType::F32, float, FromNumber>;
using F16 = PlainFormat<DType::F16, uint16_t, FromHalf>;
using BF16 = PlainFormat<DType::BF16, uint16_t, FromBfloat>;
using F64 = PlainFormat<DType::F64, double, FromNumber>;
using I8 = PlainFormat<DType::I8, int8_t, FromNumber>;
using I16 = PlainFormat<DType::I16, int16_t, FromNumber>;
using I32 = PlainFormat<DType::I32, int32_t, FromNumber>;
using I64 = PlainFormat<DType::I64, int64_t, FromNumber>;

}  // namespace dsctl::gguf
