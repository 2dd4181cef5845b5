// Repacks rows of a GGUF tensor into the panels of panel.h.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::engine::fast {

/// Bytes of a panel of 16 rows x `n_cols` of `dtype`, a format with a panel form or F32, F16 or
/// BF16. A multiple of 64.
int64_t panel_bytes(gguf::DType dtype, int64_t n_cols);

/// Repacks `n_rows` (1 to 16) rows of `n_cols` values into `panel` (panel_bytes, any content
/// before); absent rows and columns become zeros. `rows` needs no alignment; only the rows' own
/// bytes are read. Plain float types become [n_cols][16] of the same type.
void pack_panel(gguf::DType dtype, const std::byte* rows, int64_t row_stride_bytes, int n_rows,
                int64_t n_cols, std::byte* panel);

/// Dequantises `n_rows` (1 to 16) rows of any type into `panel`, [n_cols][16] f32. `row` is scratch
/// for n_cols values.
void dequantize_panel(gguf::DType dtype, const std::byte* rows, int64_t row_stride_bytes,
                      int n_rows, int64_t n_cols, float* row, float* panel);

}  // namespace dsctl::engine::fast
