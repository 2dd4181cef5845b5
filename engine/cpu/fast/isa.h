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

/// Loops over the values of one token.
struct VectorIsa {
  /// y = x / sqrt(mean(x^2) + eps) * weight over n values; y may be x.
  void (*rmsnorm)(float* y, const float* x, const float* weight, int n, float eps) = nullptr;
  /// y = silu(gate) * up, or gelu_tanh(gate) * up.
  void (*gated_silu)(float* y, const float* gate, const float* up, int64_t n) = nullptr;
  void (*gated_gelu)(float* y, const float* gate, const float* up, int64_t n) = nullptr;
  /// x += y.
  void (*add)(float* x, const float* y, int64_t n) = nullptr;
  /// Rotates pairs (2i, 2i + 1), or (i, i + n_pairs), by cos_sin (n_pairs, 2).
  void (*rotate_norm)(float* head, const float* cos_sin, int n_pairs) = nullptr;
  void (*rotate_neox)(float* head, const float* cos_sin, int n_pairs) = nullptr;
  /// f32 to f16, n a multiple of 16.
  void (*to_half)(uint16_t* to, const float* from, int64_t n) = nullptr;
};

/// Keys are taken in chunks at fixed positions: what a chunk yields depends on nothing else, and
/// chunks are merged in order, so it does not matter who computes which, or when.
inline constexpr int kChunkKeys = 256;
inline constexpr int kKeyLanes = 16;
inline constexpr int kMaxAttentionRows = 8;
inline constexpr int kMaxFastHeadDim = 256;

/// Up to 8 query rows (heads of a group, of neighbouring tokens of one sequence) that read one KV
/// head.
struct AttentionTile {
  int n_rows = 0;
  const float* q[kMaxAttentionRows] = {};     // (head_dim)
  int32_t first_key[kMaxAttentionRows] = {};  // positions a row attends to, both included
  int32_t last_key[kMaxAttentionRows] = {};
  int head_dim = 0;  // a multiple of 16
  float scale = 1.0f;
  float softcap = 0.0f;
  // The KV head's values of 16 positions begin at pages + (block_table[p / block_size] *
  // block_stride + head_offset + p % block_size * head_dim) elements, p a multiple of 16: keys
  // as (head_dim, 16), values as (16, head_dim).
  const std::byte* k = nullptr;
  const std::byte* v = nullptr;
  const int32_t* block_table = nullptr;
  int block_size = 0;  // a multiple of 16
  int64_t block_stride = 0;
  int64_t head_offset = 0;
};

/// Floats of a tile's running state: maximum and sum of each row, and the weighted sum of values.
constexpr int64_t attention_state_size(int n_rows, int head_dim) {
  return int64_t{n_rows} * (2 + head_dim);
}
/// Floats of scratch for attend.
constexpr int64_t attention_scratch_size(int n_rows, int head_dim) {
  return int64_t{n_rows} * (kChunkKeys + head_dim);
}

struct AttentionIsa {
  void (*start)(float* state, int n_rows, int head_dim) = nullptr;
  /// Merges the chunks [chunk_begin, chunk_end) of keys into `state`, in order. f32 and f16 pages.
  void (*attend_f32)(const AttentionTile& tile, int chunk_begin, int chunk_end, float* state,
                     float* scratch) = nullptr;
  void (*attend_f16)(const AttentionTile& tile, int chunk_begin, int chunk_end, float* state,
                     float* scratch) = nullptr;
  /// Merges the state `other` of a later chunk into `state`.
  void (*merge)(float* state, const float* other, int n_rows, int head_dim) = nullptr;
  /// out = weighted sum / sum, for one row.
  void (*finish)(float* out, const float* state, int row, int n_rows, int head_dim) = nullptr;
};

/// Latent attention: up to 16 heads of one token, one a lane, and the cache's rows, which all of
/// them read. Chunks of keys at fixed positions, merged in order, as above.
inline constexpr int kMlaHeads = 16;
inline constexpr int kMlaChunkKeys = 128;

struct MlaTile {
  const float* q = nullptr;  // (latent_dim + rope_dim, 16): absorbed query, then rotated part
  int latent_dim = 0;        // a multiple of 16
  int n_cols = 0;            // latent_dim + rope_dim
  int last_key = 0;          // position of the last key
  float scale = 1.0f;
  const float* rows = nullptr;  // pages, (n_blocks, block_size, n_cols)
  const int32_t* block_table = nullptr;
  int block_size = 0;
};

/// Floats of a tile's state: maximum and sum of each head, and the weighted sum of latents.
constexpr int64_t mla_state_size(int latent_dim) {
  return int64_t{kMlaHeads} * (2 + latent_dim);
}

struct MlaIsa {
  /// state = what chunk `chunk` yields. `scratch` holds kMlaChunkKeys * 16.
  void (*attend)(const MlaTile& tile, int chunk, float* state, float* scratch) = nullptr;
  /// Merges the state `other` of a later chunk into `state`.
  void (*merge)(float* state, const float* other, int latent_dim) = nullptr;
};

/// The tables; call them only where cpu_features() says so.
const LinearIsa& linear_avx2();
const LinearIsa& linear_avx512();
const VectorIsa& vector_avx2();
const VectorIsa& vector_avx512();
const AttentionIsa& attention_avx2();
const AttentionIsa& attention_avx512();
const MlaIsa& mla_avx2();
const MlaIsa& mla_avx512();

}  // namespace dsctl::engine::fast
