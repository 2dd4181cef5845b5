// ModelFootprint: what a model is made of, in bytes, from its headers alone: by purpose, by layer,
// by type, what a token reads and what it leaves in the KV cache. Works for architectures that the
// engine doesn't run, too: a plan is wanted before that question.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf/type_totals.h"

namespace dsctl::engine {

/// What a tensor is for.
enum class WeightKind {
  kEmbedding,
  kAttention,
  kDenseFfn,
  kRoutedExperts,
  kSharedExperts,
  kRouter,
  kHead,
  kOther,    // norms, rope factors and what is not known by name
  kSkipped,  // layers of multi-token prediction, which a plain step doesn't read
};

inline constexpr int kNumWeightKinds = 9;

/// "routed experts".
std::string_view weight_kind_name(WeightKind kind);

/// The purpose of a tensor by its name in a model of `n_layers` layers that take part in a step.
WeightKind weight_kind(std::string_view tensor_name, int n_layers);

/// The layer of "blk.<layer>.<suffix>", or -1.
int layer_of(std::string_view tensor_name);

/// Tensors taken together.
struct WeightTotal {
  int64_t n_tensors = 0;
  int64_t n_parameters = 0;
  int64_t size_bytes = 0;
  int64_t read_parameters = 0;  // that one token uses, alone in its step
  int64_t read_bytes = 0;
};

/// What the cache keeps of a token, in values; bytes are these times the size of one.
struct KvFootprint {
  int n_layers = 0;         // with attention
  int n_window_layers = 0;  // of them, those that see only the last `window` tokens
  int window = 0;
  int64_t full_values = 0;      // of a token, over the layers that see everything
  int64_t window_values = 0;    // over the layers with a window
  int latent_dim = 0;           // latent attention: values of a layer's compressed row; else 0
  int64_t expanded_values = 0;  // latent attention: what keys and values of all heads would take
  int n_heads = 0;
  int n_kv_heads = 0;  // the largest number of a layer
  int head_dim = 0;    // of keys; values may have another

  /// Values of `n_tokens` tokens of one sequence where layers with a window drop what they can't
  /// see any more.
  int64_t windowed_values(int64_t n_tokens) const;
  /// The same where every layer keeps all tokens, as this engine's pages do.
  int64_t values(int64_t n_tokens) const { return (full_values + window_values) * n_tokens; }
};

struct ModelFootprint {
  std::string architecture;
  int n_layers = 0;  // that take part in a step
  int dim = 0;
  int64_t context_length = 0;  // 0: the file doesn't say
  int64_t vocab_size = 0;
  int n_experts = 0;
  int n_used_experts = 0;
  bool is_tied = false;  // the head is the embedding table
  WeightTotal total;
  std::vector<WeightTotal> kinds;      // (kNumWeightKinds), by WeightKind
  std::vector<WeightTotal> layers;     // (n_layers)
  std::vector<gguf::TypeTotal> types;  // the largest first
  KvFootprint kv;

  const WeightTotal& of(WeightKind kind) const { return kinds[static_cast<size_t>(kind)]; }
  double bits_per_weight() const;
};

/// Measures a model. Throws Error naming a key that is missing or can't be.
ModelFootprint measure_model(const gguf::GgufFile& file);

}  // namespace dsctl::engine
