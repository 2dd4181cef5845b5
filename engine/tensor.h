// Views of matrices that somebody else owns: a weight as it lies in the model file, and rows of f32
// activations. They carry sizes and strides, never lifetimes.
#pragma once

#include <cstddef>
#include <cstdint>

#include "gguf/dtype.h"

namespace dsctl::engine {

struct LoraView;

/// A weight matrix, or one rank's slice of it, in the model file's own format. Row r holds the
/// weights of output r. Rows of a slice along the columns (a row-parallel shard) begin at a block
/// boundary and lie row_stride_bytes apart; data needs no alignment.
struct MatrixView {
  gguf::DType dtype = gguf::DType::F32;
  int64_t n_rows = 0;  // outputs
  int64_t n_cols = 0;  // inputs; whole blocks of dtype
  const std::byte* data = nullptr;
  int64_t row_stride_bytes = 0;
  /// data lies in a read-only mapping of a file: whoever makes a copy may give the pages back to
  /// the system (madvise), they are read again from the file when touched. Never set for other
  /// memory.
  bool is_mapped = false;
  /// What adapters add to the product; they live while the weights are loaded.
  const LoraView* loras = nullptr;
  int n_loras = 0;

  const std::byte* row(int64_t row_idx) const { return data + row_idx * row_stride_bytes; }
};

/// A low-rank addition to a product: y += scale b (a x).
struct LoraView {
  MatrixView a;  // (rank, n_cols)
  MatrixView b;  // (n_rows, rank)
  float scale = 1.0f;
};

/// Matrices of one shape that lie at equal distances: the experts of a layer, or one matrix for
/// each head.
struct MatrixStack {
  MatrixView first;
  int n_matrices = 0;
  int64_t stride_bytes = 0;  // from one matrix to the next

  MatrixView operator[](int64_t idx) const {
    MatrixView view = first;
    view.data += idx * stride_bytes;
    return view;
  }
};

/// Rows of f32, read.
struct Rows {
  const float* data = nullptr;  // (n_rows, n_cols), rows `stride` floats apart
  int64_t stride = 0;
  int n_rows = 0;
  int n_cols = 0;

  const float* row(int64_t row_idx) const { return data + row_idx * stride; }
};

/// Rows of f32, written.
struct MutableRows {
  float* data = nullptr;  // (n_rows, n_cols), rows `stride` floats apart
  int64_t stride = 0;
  int n_rows = 0;
  int n_cols = 0;

  float* row(int64_t row_idx) const { return data + row_idx * stride; }
  operator Rows() const { return {data, stride, n_rows, n_cols}; }
};

/// What stands between gate and up in a gated feed-forward network.
enum class Activation { kSilu, kGeluTanh };

}  // namespace dsctl::engine
