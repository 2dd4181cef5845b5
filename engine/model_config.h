// ModelConfig: an architecture's numbers as plain, checked values, read from the metadata of a GGUF
// file. A missing key is an error that names it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/kv_cache.h"
#include "engine/rope.h"
#include "engine/routing.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// How a rope is to be stretched; the factors' tensors are read when the weights are.
enum class RopeScaling { kNone, kLinear, kYarn, kLongRope };

struct RopeConfig {
  RopeScaling scaling = RopeScaling::kNone;
  RopeParams params;  // without freq_factors
};

/// Multi-head latent attention's sizes; what they mean: MlaShape in ops.h.
struct MlaConfig {
  int q_lora_rank = 0;  // 0: queries come from the residual stream at once
  int latent_dim = 0;   // 0: the model has ordinary attention
  int nope_dim = 0;
  int rope_dim = 0;
  int value_dim = 0;

  int q_head_dim() const { return nope_dim + rope_dim; }
};

/// A mixture of experts in the layers after the first n_dense_layers.
struct MoeConfig {
  Routing routing;
  int ffn_dim = 0;         // of one expert
  int shared_ffn_dim = 0;  // of the expert that all tokens use; 0: there is none
  int n_dense_layers = 0;
};

struct ModelConfig {
  std::string architecture;
  int n_layers = 0;
  int dim = 0;
  int ffn_dim = 0;  // of dense layers; 0: there are none
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;
  int context_length = 0;
  float norm_eps = 0.0f;
  float embedding_scale = 1.0f;
  float attention_scale = 0.0f;
  float attention_softcap = 0.0f;  // 0: off
  float logit_softcap = 0.0f;      // 0: off
  bool qk_norm = false;            // rmsnorm of each head of q and k
  bool fused_gate_up = false;      // ffn_up holds gate's rows, then up's
  RopeConfig rope;
  // Layers with a sliding window, where there are some.
  int window = 0;
  std::vector<bool> local_layers;  // (n_layers) or empty: layers that have the window
  RopeConfig local_rope;
  MlaConfig mla;
  MoeConfig moe;

  bool is_local(int layer_idx) const {
    return !local_layers.empty() && local_layers[static_cast<size_t>(layer_idx)];
  }
  /// Of the whole model.
  KvShape kv_shape() const {
    if (mla.latent_dim > 0) return {.latent_dim = mla.latent_dim + mla.rope_dim};
    return {.n_kv_heads = n_kv_heads, .head_dim = head_dim};
  }
};

/// Reads the keys of one architecture: get_int("block_count") is "<architecture>.block_count". All
/// functions throw Error naming the key when the value has another type or is out of bounds.
class ConfigReader {
 public:
  explicit ConfigReader(const gguf::GgufFile& file);

  const std::string& architecture() const { return architecture_; }
  const gguf::GgufFile& file() const { return file_; }

  /// A number in [1, max]. An array (one value for each layer) must have the same value everywhere.
  int get_int(std::string_view key, int64_t max) const;
  std::optional<int> find_int(std::string_view key, int64_t max) const;
  /// A number in [0, max]; 0 when the key is missing.
  int get_count(std::string_view key, int64_t max) const;
  /// A finite number.
  double get_float(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::string full_key(std::string_view key) const;

 private:
  std::optional<int64_t> find_uniform(std::string_view key) const;

  const gguf::GgufFile& file_;
  std::string architecture_;
};

/// What every architecture has: layers, dim, heads, context, vocabulary, eps, soft caps.
ModelConfig read_base_config(const ConfigReader& reader);

/// Adds ordinary attention to `config`: KV heads, head size, attention.scale, rope. Checks that the
/// numbers fit each other.
void read_attention_config(const ConfigReader& reader, RopeStyle style, ModelConfig& config);

/// Base, attention and a dense feed-forward network in every layer.
ModelConfig read_common_config(const ConfigReader& reader, RopeStyle style);

/// rope.* with all kinds of scaling, for heads of which head_dim values may be rotated.
RopeConfig read_rope_config(const ConfigReader& reader, RopeStyle style, int head_dim,
                            int context_length);

/// Experts: their number, choice (`defaults` where the file does not say) and sizes.
MoeConfig read_moe_config(const ConfigReader& reader, const Routing& defaults);

}  // namespace dsctl::engine
