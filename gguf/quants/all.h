// Every format through two functions, for code that does not care which format it has. A new format
// is a header of its own, an include and a line in all.cpp.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::gguf {

/// Dequantises `n_elems` (whole blocks) of `dtype` at `src` into `dst` as f32, bit for bit as the
/// reference dequantisers of ggml do. Every DType is known; F64, I32 and I64 are rounded to f32.
/// `src` needs no alignment.
void dequantize_row(DType dtype, const std::byte* src, float* dst, int64_t n_elems);

}  // namespace dsctl::gguf
