// Encoders for the formats that tests and tools write. They follow the reference's rounding where
// it is simple (bit for bit) and are plain for K-quants: no search for the best scale.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::gguf {

/// True for the types quantize_row writes: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K,
/// Q5_K, Q6_K.
bool can_quantize(DType dtype);

/// Quantises `n_elems` floats (whole blocks) at `src` into `dst`, which takes
/// row_size_bytes(dtype, n_elems). Throws Error for a type that can't be written.
void quantize_row(DType dtype, const float* src, std::byte* dst, int64_t n_elems);

}  // namespace dsctl::gguf
