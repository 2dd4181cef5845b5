// ModelConfig: an architecture's numbers as plain, checked values, read from the metadata of a GGUF
// file. A missing key is an error that names it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "engine/rope.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// How a rope is to be stretched; the factors' tensors are read when the weights are.
enum class RopeScaling { kNone, kLinear, kYarn, kLongRope };

struct RopeConfig {
  RopeScaling scaling = RopeScaling::kNone;
  RopeParams params;  // without freq_factors
};

struct ModelConfig {
  std::string architecture;
  int n_layers = 0;
  int dim = 0;
  int ffn_dim = 0;
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
  RopeConfig rope;
  // Layers with a sliding window, where there are some.
  int window = 0;
  std::vector<bool> local_layers;  // (n_layers) or empty: layers that have the window
  RopeConfig local_rope;

  bool is_local(int layer_idx) const {
    return !local_layers.empty() && local_layers[static_cast<size_t>(layer_idx)];
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
  /// A finite number.
  double get_float(std::string_view key) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::string full_key(std::string_view key) const;

 private:
  std::optional<int64_t> find_uniform(std::string_view key) const;

  const gguf::GgufFile& file_;
  std::string architecture_;
};

/// What all architectures of the common skeleton have: dims, heads, eps, rope with its scaling
/// (rope.scaling.*), attention.scale, soft caps. Checks that the numbers fit each other.
ModelConfig read_common_config(const ConfigReader& reader, RopeStyle style);

}  // namespace dsctl::engine
