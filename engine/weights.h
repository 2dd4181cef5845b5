// WeightLoader: binds the names of a GGUF file to one rank's slices with declared shapes, and hands
// them to the rank's Ops. A model's constructor reads like its list of tensors.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/lora.h"
#include "engine/ops.h"
#include "engine/shard.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

using MatrixPtr = std::unique_ptr<const WeightMatrix>;
using VectorPtr = std::unique_ptr<const WeightVector>;

/// "blk.<layer_idx>.<suffix>".
std::string block_name(int layer_idx, const std::string& suffix);

/// All functions throw Error naming the tensor when it is missing or has another shape than the
/// one declared; tensors that nobody asks for don't matter. Shapes are of the whole model.
class WeightLoader {
 public:
  /// `loras` outlives it; it is told of each matrix that is loaded.
  WeightLoader(const gguf::GgufFile& file, Shard shard, Ops& ops, LoraSet* loras = nullptr)
      : file_(file), shard_(shard), ops_(ops), loras_(loras) {}

  const Shard& shard() const { return shard_; }
  Ops& ops() { return ops_; }
  bool has(const std::string& name) const { return file_.find_tensor(name) != nullptr; }
  /// Values of one quantisation block of the tensor's type; 1 when there is no such tensor.
  int64_t block_elems(const std::string& name) const;

  // Views of a matrix with n_rows outputs and n_cols inputs.

  /// The whole of it, on every rank.
  MatrixView replicated(const std::string& name, int64_t n_rows, int64_t n_cols) const;
  /// Column-parallel: the outputs `rows`.
  MatrixView column(const std::string& name, int64_t n_rows, int64_t n_cols, Range rows) const;
  /// Row-parallel: the inputs `cols`, which begin at a block boundary and end at one or with the
  /// row.
  MatrixView row(const std::string& name, int64_t n_rows, int64_t n_cols, Range cols) const;

  /// Of `n_matrices` such matrices the ones in `matrices`, of each the outputs `rows` and the
  /// inputs `cols` (cut as above). The tensor has three dimensions, or two with the matrices one
  /// below the other.
  MatrixStack stack(const std::string& name, int64_t n_matrices, int64_t n_rows, int64_t n_cols,
                    Range matrices, Range rows, Range cols) const;

  // Weights in the Ops's form.

  MatrixPtr matrix(const std::vector<MatrixView>& parts) { return ops_.load_matrix(parts); }
  /// A vector of `n` values, replicated.
  VectorPtr vector(const std::string& name, int64_t n) { return ops_.load_vector(values(name, n)); }
  /// The same, or null when there is no such tensor.
  VectorPtr find_vector(const std::string& name, int64_t n);

  /// A vector's values as f32.
  std::vector<float> values(const std::string& name, int64_t n) const;

 private:
  const gguf::TensorInfo& find(const std::string& name, int64_t n_rows, int64_t n_cols) const;

  const gguf::GgufFile& file_;
  Shard shard_;
  Ops& ops_;
  LoraSet* loras_;
};

}  // namespace dsctl::engine
