// What differs from one architecture to the next when a checkpoint becomes a GGUF file: names of
// tensors, what is done to them, keys of metadata. A new architecture is a file and a line in
// architectures.cpp. Internal to gguf/convert.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/convert/hf_config.h"
#include "gguf/convert/metadata_list.h"
#include "gguf/convert/weight.h"

namespace dsctl::gguf::convert {

/// A weight under its name in the checkpoint.
struct SourceWeight {
  std::string name;
  WeightPtr weight;
};

/// A tensor of the file to be written.
struct PlannedWeight {
  std::string name;
  std::string source;  // in the checkpoint, for people
  WeightPtr weight;
};

struct Architecture {
  std::string_view name;  // general.architecture
  std::span<const std::string_view> class_names;
  /// What transformers takes when config.json does not say.
  void (*set_defaults)(HfConfig& config);
  /// True for a tensor that the file does not need.
  bool (*is_skipped)(const HfConfig& config, std::string_view name);
  /// The tensors, in the order of llama.cpp's converter. Throws Error naming one that is unknown.
  std::vector<PlannedWeight> (*plan)(const HfConfig& config, std::vector<SourceWeight> sources);
  /// Keys of the architecture after the common ones.
  void (*add_parameters)(const HfConfig& config, MetadataList& metadata);
  /// Whether a SentencePiece vocabulary is written with add_space_prefix = false.
  bool has_no_space_prefix = false;
};

std::span<const Architecture> architectures();
/// The architecture of a transformers class. Throws Error naming the supported ones.
const Architecture& find_architecture(std::string_view class_name);

// The files of this folder, and what they share (parts.cpp).
extern const Architecture kLlama;
extern const Architecture kQwen2;
extern const Architecture kQwen3;
extern const Architecture kGemma3;
extern const Architecture kDeepseek2;

/// A name taken apart: "model.layers.3.self_attn.q_proj.weight" is {3, "self_attn.q_proj.weight"},
/// "lm_head.weight" is {-1, "lm_head.weight"}.
struct LayerName {
  int layer_idx = -1;
  std::string_view part;
};
LayerName split_name(std::string_view name);

/// Parts of names without ".weight" and ".bias", in the checkpoint and in GGUF.
struct NamePair {
  std::string_view source;  // "self_attn.q_proj"
  std::string_view target;  // "attn_q"
};

/// The GGUF name of `name`: by `pairs`, or the outer tensors' (embedding, norm, head). Throws Error
/// when it is unknown.
std::string map_name(std::string_view name, std::span<const NamePair> pairs);

/// Experts of layers, which become one tensor each when the last one has come.
class ExpertStacks {
 public:
  explicit ExpertStacks(uint32_t n_experts) : n_experts_(n_experts) {}
  /// Takes "mlp.experts.7.gate_proj.weight"; appends down, gate and up to `planned` when the
  /// layer's are all there. False when `name` is no expert's.
  bool take(const LayerName& name, WeightPtr& weight, std::vector<PlannedWeight>& planned);
  /// Throws Error when a layer's experts are not all there.
  void finish() const;

 private:
  struct Layer {
    std::map<std::string, std::vector<WeightPtr>, std::less<>> by_part;  // "down_proj" -> experts
    size_t n = 0;
  };
  uint32_t n_experts_;
  std::map<int, Layer> layers_;
};

/// The keys that every architecture has, in order.
void add_common_parameters(const HfConfig& config, std::string_view architecture,
                           uint32_t file_type, MetadataList& metadata);
/// head_dim, or hidden_size over the heads.
uint32_t head_dim(const HfConfig& config);

}  // namespace dsctl::gguf::convert
