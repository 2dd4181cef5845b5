// The seam between the fast path's logic and its vector code: one table of functions for each
// instruction set. linear_avx2.cpp and its like fill it; nothing else knows which one runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::engine::fast {

/// A weight's panels times a prepared input.
struct PanelProduct {
  const std::byte* panels = nullptr;  // see panel.h
  int64_t panel_bytes = 0;
  int64_t n_cols = 0;
  int64_t n_rows = 0;
  const std::byte* tiles = nullptr;  // quantised records, or f32 [n_cols][T] for plain weights
  int64_t tile_bytes = 0;            // of a full tile
  int n_tokens = 0;
  const float* bias = nullptr;  // (n_rows) or null
  float* y = nullptr;           // (n_tokens, n_rows), rows y_stride floats apart
  int64_t y_stride = 0;
};

/// Computes the outputs of panels [panel_begin, panel_end) for tiles [tile_begin, tile_end).
using PanelFunction = void (*)(const PanelProduct& product, int64_t panel_begin, int64_t panel_end,
                               int64_t tile_begin, int64_t tile_end);

struct LinearIsa {
  const char* name = "";
  int tile_tokens = 0;  // T of a full tile, <= kMaxTileTokens
  /// The function for panels of `dtype` (a panel format, F32, F16 or BF16); null for others.
  PanelFunction (*panel_function)(gguf::DType dtype) = nullptr;
  /// Quantises `n_tokens` (1 to T) rows of `n_cols` values into a tile of padded_blocks(n_cols)
  /// records.
  void (*quantize_tile)(const float* x, int64_t x_stride, int n_tokens, int64_t n_cols,
                        std::byte* tile) = nullptr;
};

/// The tables; call them only where cpu_features() says so.
const LinearIsa& linear_avx2();
const LinearIsa& linear_avx512();

}  // namespace dsctl::engine::fast
