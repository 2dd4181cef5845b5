// The seam between the encoders' interface (encode.h) and their vector code, which is compiled once
// for each instruction set: encode_base.cpp, encode_avx2.cpp, encode_avx512.cpp. All three give the
// same bits: a lane of a vector holds a group or an element of its own, and what is added up is
// added in the order of the elements.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::gguf {

/// Rows to encode: src (n_rows, n_cols) f32, whole blocks a row; dst takes the blocks of all rows.
/// `importance` (n_cols) weighs the columns; null: every format's own weights.
struct EncodeRows {
  const float* src = nullptr;
  std::byte* dst = nullptr;
  int64_t n_rows = 0;
  int64_t n_cols = 0;
  const float* importance = nullptr;
};

using RowsEncoder = void (*)(const EncodeRows&);

/// The encoder of `dtype` for one instruction set, or null when the type can't be written.
RowsEncoder encoder_base(DType dtype);
RowsEncoder encoder_avx2(DType dtype);
RowsEncoder encoder_avx512(DType dtype);

}  // namespace dsctl::gguf
