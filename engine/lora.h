// LoRA adapters in GGUF form: for a matrix NAME the tensors NAME.lora_a (rank rows) and NAME.lora_b
// (rank columns). They are applied beside the weights, which stay as they are in the file.
#pragma once

#include <deque>
#include <functional>
#include <set>
#include <string>
#include <vector>

#include "engine/shard.h"
#include "engine/tensor.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// Opens an adapter for a model of `architecture`. Throws Error when the file is no LoRA adapter or
/// is one of another architecture.
gguf::GgufFile open_adapter(const std::string& path, std::string_view architecture);

/// An adapter and the factor to its own scale.
struct OpenAdapter {
  gguf::GgufFile file;
  float scale = 1.0f;
};

/// The adapters of one rank while it loads its weights.
class LoraSet {
 public:
  /// `adapters` outlive the weights.
  explicit LoraSet(const std::vector<OpenAdapter>& adapters) : adapters_(adapters) {}

  struct Shape {
    int64_t n_rows = 0;
    int64_t n_cols = 0;
  };
  /// Adds to `view`, which is `rows` and `cols` of the matrix `name` of `shape`, what the adapters
  /// have for it. Throws Error when their tensors don't fit.
  void add_to(MatrixView& view, const std::string& name, Shape shape, Range rows, Range cols);

  /// Throws Error naming a tensor of an adapter that no matrix has asked for.
  void check_all_used() const;

 private:
  const std::vector<OpenAdapter>& adapters_;
  std::deque<std::vector<LoraView>> views_;
  std::set<std::string, std::less<>> used_;
};

}  // namespace dsctl::engine
