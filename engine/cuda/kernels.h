// The kernels' launchers: plain functions over device pointers, one group for each .cu file. All of
// them queue work on the given stream and return; sizes are the caller's promise.
//
// Every output is computed by the same operations in the same order whatever the other rows of the
// step are: a row has the same bits alone and in company.
#pragma once

#include <cstdint>

#include "engine/cuda/stream.h"
#include "engine/cuda/tiles.h"
#include "engine/rope.h"
#include "engine/tensor.h"
#include "gguf/dtype.h"
#include "gguf/quants/iq_grids.h"

namespace dsctl::engine::cuda {

// repack.cu

/// Packs rows [0, n_rows) of `raw` (row_bytes apart, n_cols columns) into whole panels at `tiles`.
void pack_tiles(Stream& stream, gguf::DType dtype, const std::byte* raw, int64_t row_bytes,
                int n_rows, int n_cols, std::byte* tiles);

// embed.cu

/// x (n_tokens, n_cols) = table[token_ids] * scale; rows of the table are row_bytes apart.
struct EmbedArgs {
  float* x = nullptr;
  const std::byte* table = nullptr;
  gguf::DType dtype = gguf::DType::F32;
  int64_t row_bytes = 0;
  int n_cols = 0;
  const int32_t* token_ids = nullptr;  // (n_tokens)
  int n_tokens = 0;
  float scale = 1.0f;
  const gguf::IqGrids* grids = nullptr;  // on the device
};
void embed(Stream& stream, const EmbedArgs& args);

// input.cu

/// What the inputs of a product are computed from, one row a token.
enum class InputKind { kPlain, kNorm, kGated };

/// The rows as f32, as quantised tiles, or both:
/// kPlain  x
/// kNorm   rmsnorm(x) * norm
/// kGated  activation(x) * up
struct InputArgs {
  InputKind kind = InputKind::kPlain;
  const float* x = nullptr;  // (n_tokens, n_cols), x_stride apart
  int64_t x_stride = 0;
  const float* up = nullptr;    // kGated: like x
  const float* norm = nullptr;  // kNorm: (n_cols)
  float eps = 0.0f;
  Activation activation = Activation::kSilu;
  int n_cols = 0;
  int n_tokens = 0;
  float* values = nullptr;          // (n_tokens, values_stride) or null
  int64_t values_stride = 0;        // a multiple of 4
  ActivationTile* tiles = nullptr;  // (n_tokens, tiles_stride) or null: n_cols is whole steps
  int64_t tiles_stride = 0;
};
void prepare_input(Stream& stream, const InputArgs& args);

/// x += y, or x += rmsnorm(y + bias) * norm; all (n_tokens, n_cols) without gaps.
struct AddArgs {
  float* x = nullptr;
  const float* y = nullptr;
  const float* bias = nullptr;  // (n_cols) or null
  const float* norm = nullptr;  // (n_cols) or null
  float eps = 0.0f;
  int n_cols = 0;
  int n_tokens = 0;
};
void add_branch(Stream& stream, const AddArgs& args);

// tile_linear.cu, row_linear.cu

/// Where a product's outputs go: out[t * stride + r], set or added to.
struct OutputArgs {
  float* out = nullptr;
  int64_t stride = 0;
  const float* bias = nullptr;  // (outputs of the part) or null
  bool add = false;             // out += result instead of out = result
};

/// One of several tiled matrices with the same input.
struct TilePart {
  const std::byte* tiles = nullptr;
  gguf::DType dtype = gguf::DType::Q4_K;
  int n_rows = 0;
  OutputArgs output;
};

constexpr int kMaxTileParts = 4;

/// All parts in one launch.
struct TileLinearArgs {
  TilePart parts[kMaxTileParts];
  int n_parts = 0;
  int n_cols = 0;                         // of all parts, a multiple of 32
  const ActivationTile* input = nullptr;  // (n_tokens, input_stride)
  int64_t input_stride = 0;
  int n_tokens = 0;
  bool exact = true;  // all 16 bits of the inputs, or their high bytes
};
void tile_linear(Stream& stream, const TileLinearArgs& args);

/// A matrix in the file's own format, row by row; every type.
struct RowLinearArgs {
  const std::byte* weights = nullptr;
  gguf::DType dtype = gguf::DType::F32;
  int64_t row_bytes = 0;  // a multiple of 16 for F32, F16 and BF16
  int n_rows = 0;
  int n_cols = 0;
  const float* input = nullptr;  // (n_tokens, input_stride)
  int64_t input_stride = 0;
  int n_tokens = 0;
  OutputArgs output;
  const gguf::IqGrids* grids = nullptr;  // on the device
};
void row_linear(Stream& stream, const RowLinearArgs& args);

// attention.cu

/// One layer's pages, (n_blocks, n_kv_heads, block_size, head_dim) each.
struct DeviceKvPages {
  gguf::DType dtype = gguf::DType::F16;  // F32, F16 or BF16
  std::byte* k = nullptr;
  std::byte* v = nullptr;
  int block_size = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
};

/// cos_sin (n_positions, n_dims / 2) {cos, sin}, from `frequencies` (n_dims / 2) on the device.
void fill_rope_table(Stream& stream, const double* frequencies, int n_pairs, double magnitude,
                     int n_positions, float* cos_sin);

struct RopeStoreDeviceArgs {
  float* qkv = nullptr;  // (n_tokens, qkv_stride)
  int64_t qkv_stride = 0;
  int n_heads = 0;
  const float* q_norm = nullptr;  // (head_dim) or null
  const float* k_norm = nullptr;  // (head_dim) or null
  float eps = 0.0f;
  RopeStyle style = RopeStyle::kNeox;
  int n_dims = 0;
  const float* cos_sin = nullptr;         // (max_positions, n_dims / 2, 2)
  const int32_t* positions = nullptr;     // (n_tokens)
  const int32_t* slot_mapping = nullptr;  // (n_tokens)
  int n_tokens = 0;
  DeviceKvPages kv;
};
void rope_store(Stream& stream, const RopeStoreDeviceArgs& args);

/// Keys of one split: partial results are of fixed ranges of positions, so that sums have the same
/// order in every batch.
constexpr int kSplitKeys = 256;
/// The largest head that attention can do; it is a multiple of 4 as well.
constexpr int kMaxHeadDim = 256;

struct AttentionDeviceArgs {
  float* out = nullptr;  // (n_tokens, out_stride)
  int64_t out_stride = 0;
  const float* q = nullptr;  // (n_tokens, q_stride)
  int64_t q_stride = 0;
  int n_heads = 0;
  float scale = 1.0f;
  float softcap = 0.0f;
  int window = 0;
  const int32_t* positions = nullptr;     // (n_tokens)
  const int32_t* seq_of_token = nullptr;  // (n_tokens)
  const int32_t* block_tables = nullptr;  // (n_seqs, table_stride)
  int table_stride = 0;
  int n_tokens = 0;
  int n_splits = 0;  // >= last position / kSplitKeys + 1
  DeviceKvPages kv;
  float* partial = nullptr;  // (n_tokens, n_heads, n_splits, head_dim + 2): scratch
};
void attention(Stream& stream, const AttentionDeviceArgs& args);

// sample.cu

/// Moves rows in place: row i becomes row rows[i], ascending, i <= rows[i].
void gather_rows(Stream& stream, float* x, int64_t stride, int n_cols, const int32_t* rows,
                 int n_rows);
/// logits = cap * tanh(logits / cap), (n_rows, n_cols) without gaps.
void soft_cap(Stream& stream, float* logits, int64_t n_values, float cap);

/// The best token of a row: the lowest id among equals. token < 0: a logit is no finite number.
struct Best {
  int32_t token;
  float logit;
};
void arg_max(Stream& stream, const float* logits, int n_rows, int n_cols, Best* best);

}  // namespace dsctl::engine::cuda
