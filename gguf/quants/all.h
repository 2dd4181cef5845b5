// Every quantised format through two functions, for code that does not care which format it has.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::gguf {

/// Dequantises `n_elems` (whole blocks) of `dtype` at `src` into `dst` as f32, bit for bit as the
/// reference dequantisers do. Throws Error for types that hold no weights (integers, Q8_1, Q8_K are
/// accepted: their values are exact).
void dequantize_row(DType dtype, const std::byte* src, float* dst, int64_t n_elems);

}  // namespace dsctl::gguf
