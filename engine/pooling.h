// Pooling: what a request that wants no generation gets of its prompt's hidden states: the
// residual stream after the last layer, normalised by the output norm, (dim) values a token.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/request.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// The pooling that the model was made for ("<architecture>.pooling_type"); where the file names
/// none, the last token's state: the only one that has seen all of a causal model's prompt. Throws
/// Error for an unknown number.
Pooling model_pooling(const gguf::GgufFile& file);

/// Whether `pooling` looks at the state of the token at `position` of a prompt of `n_prompt`.
bool pooling_reads(Pooling pooling, int position, int n_prompt);

/// Whether every state must be computed for this request: a prefix found in the cache has keys and
/// values, but no states.
bool pooling_needs_prefix(Pooling pooling);

/// The classifier of a reranker: cls.{weight,bias}, a tanh, then cls.output.{weight,bias}.
class RankHead {
 public:
  /// Null when `file` has none. Throws Error when a tensor has another shape.
  static std::shared_ptr<const RankHead> read(const gguf::GgufFile& file, int dim);

  /// The scores (n_labels) of a `state` (dim). Several labels that exclude each other, as Qwen3's
  /// yes and no, are probabilities.
  std::vector<float> scores(std::span<const float> state) const;

 private:
  struct Layer {
    std::vector<float> weight;  // (n_outputs, n_inputs)
    std::vector<float> bias;    // (n_outputs)

    static std::optional<Layer> read(const gguf::GgufFile& file, const std::string& name,
                                     int64_t n_inputs);
    std::vector<float> apply(std::span<const float> input) const;
  };
  Layer dense_;  // empty: there is none
  Layer output_;
  bool is_distribution_ = false;
};

/// One request's states, from its first step to its last. A request that is computed again from its
/// beginning may simply begin again. The result's bits depend on the states alone, not on how the
/// prompt was cut.
class Pooler {
 public:
  Pooler(Pooling pooling, int n_prompt, int dim);

  Pooling pooling() const { return pooling_; }
  /// Takes the state (dim) of the token at `position`, which pooling_reads.
  void add(int position, std::span<const float> state);
  /// The result, see Pooling. `rank_head` is needed for kRank only.
  std::vector<float> take(const RankHead* rank_head);

 private:
  Pooling pooling_;
  int n_prompt_;
  std::vector<double> sum_;    // (dim), kMean only
  std::vector<float> states_;  // (n_prompt or 1, dim), the others
};

}  // namespace dsctl::engine
