// Weight: one logical tensor on its way from a checkpoint to a GGUF file, read row by row, so that
// no tensor is ever whole in memory. What a file stores (a scalar type, FP8 with scales, packed
// 4-bit codes) and what the conversion does with it (rows in another order, experts stacked) are
// both Weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gguf/convert/safetensors.h"
#include "gguf/dtype.h"

namespace dsctl::gguf::convert {

/// Rows are the slices along the last dimension, over all other dimensions. Immutable; thread-safe.
class Weight {
 public:
  virtual ~Weight() = default;

  /// Outermost first, as PyTorch writes it.
  const std::vector<int64_t>& shape() const { return shape_; }
  int64_t n_cols() const { return shape_.empty() ? 1 : shape_.back(); }
  int64_t n_rows() const;

  /// Rows [begin, end) as f32 into `out` (end - begin, n_cols), row-major.
  virtual void read_rows(int64_t begin, int64_t end, float* out) const = 0;

  /// True when copy_rows gives this weight in `dtype` without rounding a value.
  virtual bool is_exact_in(DType) const { return false; }
  /// Rows [begin, end) in `dtype`, for which is_exact_in holds, or which `can_approximate`.
  virtual void copy_rows(DType dtype, int64_t begin, int64_t end, std::byte* out) const;
  /// True when copy_rows gives the nearest values in `dtype`, though not the exact ones.
  virtual bool can_approximate(DType) const { return false; }

  /// "BF16", "F8_E4M3", "AWQ": what the checkpoint stores, for people.
  virtual std::string stored_type() const = 0;
  /// True for codes with scales of a quantised checkpoint.
  virtual bool is_quantized() const { return false; }
  /// True when PyTorch computes with this weight in f16.
  virtual bool is_half() const { return false; }

 protected:
  explicit Weight(std::vector<int64_t> shape) : shape_(std::move(shape)) {}
  std::vector<int64_t> shape_;
};

using WeightPtr = std::unique_ptr<Weight>;

/// A tensor as it is stored: F64, F32, F16, BF16 or FP8 (as plain numbers). Throws Error for
/// others.
WeightPtr plain_weight(const SafeTensor& tensor);

/// FP8 codes (rows, cols) times a scale for each block of `block_rows` x `block_cols`, or one scale
/// for all of it. Throws Error when the shapes don't suit each other.
WeightPtr scaled_fp8_weight(const SafeTensor& codes, const SafeTensor& scales, int64_t block_rows,
                            int64_t block_cols);

/// `values` as a tensor of one dimension.
WeightPtr vector_weight(std::vector<float> values);

/// `inner` + `addend`, rounded as PyTorch does: in f16 when that is what is stored.
WeightPtr shifted_weight(WeightPtr inner, float addend);

/// Rope on halves becomes rope on neighbours: in each of `n_heads` heads row j of half i goes to
/// row 2j + i. Throws Error when the rows don't divide.
WeightPtr interleaved_weight(WeightPtr inner, int64_t n_heads);

/// The first `n_rows` rows.
WeightPtr first_rows(WeightPtr inner, int64_t n_rows);

/// Weights of one shape, stacked along a new outermost dimension.
WeightPtr stacked_weight(std::vector<WeightPtr> parts);

/// Of each of `n_heads` groups of rows in `inner` (n_heads * group, cols): rows [begin, end), as
/// (n_heads, end - begin, cols).
WeightPtr head_rows(std::shared_ptr<const Weight> inner, int64_t n_heads, int64_t begin,
                    int64_t end);
/// The same, each group transposed: (n_heads, cols, end - begin).
WeightPtr transposed_head_rows(std::shared_ptr<const Weight> inner, int64_t n_heads, int64_t begin,
                               int64_t end);

}  // namespace dsctl::gguf::convert
