// Encoders: f32 rows into a tensor type, with or without an importance matrix. Where ggml's
// reference has a procedure they follow it operation by operation, so that a tensor comes out equal
// to llama-quantize's bit for bit, on every instruction set.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::gguf {

/// True for the types that can be written: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K to
/// Q6_K, IQ4_NL, IQ4_XS, MXFP4.
bool can_quantize(DType dtype);

/// Quantises src (n_rows, n_cols), whole blocks a row, into dst, which takes n_rows of
/// row_size_bytes(dtype, n_cols). `importance` (n_cols) says how much an error in each column
/// matters (the mean square of the inputs it meets); null: the formats' own weights. Throws Error
/// for a type that can't be written.
void quantize_rows(DType dtype, const float* src, std::byte* dst, int64_t n_rows, int64_t n_cols,
                   const float* importance);

/// The same for `n_elems` floats (whole blocks) without a matrix.
void quantize_row(DType dtype, const float* src, std::byte* dst, int64_t n_elems);

/// Which compiled form of the encoders runs; all give the same bits. For tests and benchmarks.
enum class EncoderIsa { kBase, kAvx2, kAvx512 };

/// True when this processor can run `isa`.
bool has_encoder_isa(EncoderIsa isa);

/// quantize_rows on `isa`, which the processor must have.
void quantize_rows_on(EncoderIsa isa, DType dtype, const float* src, std::byte* dst, int64_t n_rows,
                      int64_t n_cols, const float* importance);

}  // namespace dsctl::gguf
