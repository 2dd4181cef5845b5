#include <algorithm>
#include <array>
#include <charconv>

#include "gguf/convert/architecture.h"
#include "gguf/error.h"
#include "gguf/printable.h"

namespace dsctl::gguf::convert {
namespace {

constexpr std::array<NamePair, 3> kOuter{{
    {"embed_tokens", "token_embd"},
    {"norm", "output_norm"},
    {"lm_head", "output"},
}};

std::string_view target_of(std::string_view source, std::span<const NamePair> pairs) {
  const auto found = std::find_if(pairs.begin(), pairs.end(),
                                  [&](const NamePair& pair) { return pair.source == source; });
  return found == pairs.end() ? std::string_view() : found->target;
}

/// "rope.scaling.*" of the type, which is not "default".
void add_rope_scaling(const RopeParameters& rope, const std::string& prefix,
                      MetadataList& metadata) {
  const auto number = [&](const char* key) {
    return number_member(rope.values, key, std::string("rope_parameters.") + key);
  };
  const auto set_number = [&](std::string_view key, std::optional<double> value) {
    if (value) metadata.set(prefix + std::string(key), static_cast<float>(*value));
  };
  const auto factor = number("factor");
  if (rope.type == "linear" && factor) {
    metadata.set(prefix + "type", "linear");
    set_number("factor", factor);
  } else if (rope.type == "yarn" && factor) {
    metadata.set(prefix + "type", "yarn");
    set_number("factor", factor);
    const auto original = number("original_max_position_embeddings");
    if (!original || *original < 0 || *original > INT32_MAX) {
      throw Error(
          "config.json: rope_parameters.original_max_position_embeddings: missing, but "
          "YaRN needs it");
    }
    metadata.set(prefix + "original_context_length", static_cast<uint32_t>(*original));
    if (const auto truncate = bool_member(rope.values, "truncate")) {
      metadata.set(prefix + "yarn_truncate", *truncate);
    }
    set_number("yarn_ext_factor", number("extrapolation_factor"));
    const auto attention = number("attention_factor");
    set_number("yarn_attn_factor", attention ? attention : number("attn_factor"));
    set_number("yarn_beta_fast", number("beta_fast"));
    set_number("yarn_beta_slow", number("beta_slow"));
  } else if (rope.type != "default" && rope.type != "llama3") {
    throw Error("config.json: rope of type \"" + printable(rope.type) +
                "\" is not supported; expected default, linear, yarn or llama3");
  }
}

void add_experts(const HfConfig& config, const std::string& prefix, MetadataList& metadata) {
  const auto set = [&](std::string_view key, std::optional<uint32_t> value) {
    if (value) metadata.set(prefix + std::string(key), *value);
  };
  set("expert_count", config.find_uint("n_routed_experts"));
  set("expert_used_count", config.find_uint("num_experts_per_tok"));
  set("expert_group_count", config.find_uint("n_group"));
  set("expert_group_used_count", config.find_uint("topk_group"));
  if (const auto scoring = config.find_string("scoring_func")) {
    if (*scoring != "softmax" && *scoring != "sigmoid") {
      throw Error("config.json: scoring_func: \"" + printable(*scoring) +
                  "\", expected softmax or sigmoid");
    }
    set("expert_gating_func", *scoring == "softmax" ? 1U : 2U);
  }
}

}  // namespace

LayerName split_name(std::string_view name) {
  if (name.starts_with("model.")) name.remove_prefix(6);
  constexpr std::string_view kLayers = "layers.";
  if (!name.starts_with(kLayers)) return {-1, name};
  LayerName split;
  const char* const end = name.data() + name.size();
  const auto [dot, error] = std::from_chars(name.data() + kLayers.size(), end, split.layer_idx);
  if (error != std::errc() || dot == end || *dot != '.' || split.layer_idx < 0) return {-1, name};
  split.part = std::string_view(dot + 1, static_cast<size_t>(end - dot - 1));
  return split;
}

std::string map_name(std::string_view name, std::span<const NamePair> pairs) {
  const LayerName split = split_name(name);
  const size_t dot = split.part.rfind('.');
  if (dot != std::string_view::npos) {
    const std::string_view suffix = split.part.substr(dot);
    const std::string_view base = split.part.substr(0, dot);
    const std::string_view target =
        split.layer_idx < 0 ? target_of(base, kOuter) : target_of(base, pairs);
    if (!target.empty() && (suffix == ".weight" || suffix == ".bias")) {
      const std::string block =
          split.layer_idx < 0 ? "" : "blk." + std::to_string(split.layer_idx) + ".";
      return block + std::string(target) + std::string(suffix);
    }
  }
  throw Error("tensor \"" + printable(name) + "\": no tensor of this architecture");
}

bool ExpertStacks::take(const LayerName& name, WeightPtr& weight,
                        std::vector<PlannedWeight>& planned) {
  constexpr std::string_view kPrefix = "mlp.experts.";
  if (!name.part.starts_with(kPrefix) || name.layer_idx < 0) return false;
  const std::string_view rest = name.part.substr(kPrefix.size());
  uint32_t expert = 0;
  const char* const end = rest.data() + rest.size();
  const auto [dot, error] = std::from_chars(rest.data(), end, expert);
  const std::string_view tail(dot, static_cast<size_t>(end - dot));
  const bool is_known =
      tail == ".down_proj.weight" || tail == ".gate_proj.weight" || tail == ".up_proj.weight";
  const std::string where =
      "tensor \"" + printable(name.part) + "\" of layer " + std::to_string(name.layer_idx) + ": ";
  if (error != std::errc() || !is_known) throw Error(where + "no expert's weight");
  if (expert >= n_experts_) {
    throw Error(where + "expected at most " + std::to_string(n_experts_) + " experts");
  }
  Layer& layer = layers_[name.layer_idx];
  auto& experts = layer.by_part[std::string(tail.substr(1, tail.rfind('.') - 1))];
  experts.resize(n_experts_);
  experts[expert] = std::move(weight);
  if (++layer.n < size_t{3} * n_experts_) return true;
  for (const auto& [part, target] :
       {std::pair("down_proj", "ffn_down_exps"), std::pair("gate_proj", "ffn_gate_exps"),
        std::pair("up_proj", "ffn_up_exps")}) {
    const std::string stem = "layers." + std::to_string(name.layer_idx) + ".mlp.experts.*.";
    planned.push_back({"blk." + std::to_string(name.layer_idx) + "." + target + ".weight",
                       stem + part + ".weight", stacked_weight(std::move(layer.by_part[part]))});
  }
  layers_.erase(name.layer_idx);
  return true;
}

void ExpertStacks::finish() const {
  if (layers_.empty()) return;
  const auto& [layer_idx, layer] = *layers_.begin();
  throw Error("layer " + std::to_string(layer_idx) + ": " + std::to_string(layer.n) +
              " weights of experts, expected " + std::to_string(size_t{3} * n_experts_));
}

uint32_t head_dim(const HfConfig& config) {
  if (const auto dim = config.find_uint("head_dim")) return *dim;
  const uint32_t n_heads = config.get_uint("num_attention_heads");
  if (n_heads == 0) throw Error("config.json: num_attention_heads: 0, expected at least 1");
  return config.get_uint("hidden_size") / n_heads;
}

void add_common_parameters(const HfConfig& config, std::string_view architecture,
                           uint32_t file_type, MetadataList& metadata) {
  const std::string prefix = std::string(architecture) + ".";
  const auto set = [&](std::string_view key, std::string_view source) {
    if (const auto value = config.find_uint(source)) {
      metadata.set(prefix + std::string(key), *value);
    }
  };
  metadata.set(prefix + "block_count", config.get_uint("num_hidden_layers"));
  set("context_length", "max_position_embeddings");
  set("embedding_length", "hidden_size");
  set("feed_forward_length", "intermediate_size");
  set("attention.head_count", "num_attention_heads");
  set("attention.head_count_kv", "num_key_value_heads");
  const RopeParameters rope = read_rope(config);
  add_rope_scaling(rope, prefix + "rope.scaling.", metadata);
  if (rope.theta) metadata.set(prefix + "rope.freq_base", static_cast<float>(*rope.theta));
  if (rope.local_theta) {
    metadata.set(prefix + "rope.freq_base_swa", static_cast<float>(*rope.local_theta));
  }
  if (const auto eps = config.find_number("rms_norm_eps")) {
    metadata.set(prefix + "attention.layer_norm_rms_epsilon", static_cast<float>(*eps));
  }
  add_experts(config, prefix, metadata);
  set("attention.key_length", "head_dim");
  set("attention.value_length", "head_dim");
  metadata.set("general.file_type", file_type);
}

}  // namespace dsctl::gguf::convert
