// deepseek2: DeepSeek V2, V3 and R1. kv_b_proj is split into its two halves, the first transposed,
// so that attention can run on the latent vector; experts are stacked; the layers of multi-token
// prediction after the last one are left out, as llama.cpp does.
#include <array>

#include "gguf/convert/architecture.h"
#include "gguf/error.h"

namespace dsctl::gguf::convert {
namespace {

constexpr std::array<std::string_view, 2> kClasses = {"DeepseekV3ForCausalLM",
                                                      "DeepseekV2ForCausalLM"};

constexpr std::array<NamePair, 17> kNames{{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.q_a_proj", "attn_q_a"},
    {"self_attn.q_a_layernorm", "attn_q_a_norm"},
    {"self_attn.q_b_proj", "attn_q_b"},
    {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
    {"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
    {"mlp.gate", "ffn_gate_inp"},
    {"mlp.gate.e_score_correction", "exp_probs_b"},
    {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
    {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
    {"mlp.shared_experts.down_proj", "ffn_down_shexp"},
}};

void set_defaults(HfConfig& config) {
  const bool is_v3 = config.class_name() == "DeepseekV3ForCausalLM";
  config.set_default("rms_norm_eps", 1e-6);
  config.set_default("rope_theta", 10000.0);
  config.set_default("max_position_embeddings", is_v3 ? 4096 : 2048);
  config.set_default("vocab_size", is_v3 ? 129280 : 102400);
  config.set_default("kv_lora_rank", 512);
  config.set_default("qk_rope_head_dim", 64);
  config.set_default("head_dim", config.get_uint("qk_rope_head_dim"));
  config.set_default("qk_nope_head_dim", 128);
  config.set_default("v_head_dim", 128);
  config.set_default("n_routed_experts", is_v3 ? 256 : 64);
  config.set_default("n_shared_experts", is_v3 ? 1 : 2);
  config.set_default("routed_scaling_factor", is_v3 ? 2.5 : 1.0);
  config.set_default("first_k_dense_replace", is_v3 ? 3 : 0);
  // `null` says that q has no low rank.
  if (!config.json().contains("q_lora_rank")) config.set_default("q_lora_rank", 1536);
  if (!is_v3) return;
  config.set_default("n_group", 8);
  config.set_default("topk_group", 4);
  config.set_default("num_experts_per_tok", 8);
  config.set_default("norm_topk_prob", true);
  // The class has no other; newer files leave it out.
  config.set_default("scoring_func", "sigmoid");
}

bool is_skipped(const HfConfig& config, std::string_view name) {
  const LayerName split = split_name(name);
  if (split.layer_idx >= static_cast<int>(config.get_uint("num_hidden_layers"))) return true;
  return split.part == "lm_head.weight" && config.find_bool("tie_word_embeddings").value_or(false);
}

/// kv_b_proj (n_heads * (nope + v), lora) as k_b (n_heads, lora, nope) and v_b (n_heads, v, lora).
void split_kv_b(const HfConfig& config, SourceWeight& source, std::vector<PlannedWeight>& planned) {
  const int64_t n_heads = config.get_uint("num_attention_heads");
  const int64_t nope = config.get_uint("qk_nope_head_dim");
  const int64_t v = config.get_uint("v_head_dim");
  const std::shared_ptr<const Weight> kv_b = std::move(source.weight);
  const std::string block = "blk." + std::to_string(split_name(source.name).layer_idx) + ".";
  if (kv_b->shape().size() != 2 || kv_b->shape()[0] != n_heads * (nope + v)) {
    throw Error("tensor \"" + source.name + "\": expected " + std::to_string(n_heads) +
                " heads of " + std::to_string(nope + v) + " rows");
  }
  planned.push_back(
      {block + "attn_k_b.weight", source.name, transposed_head_rows(kv_b, n_heads, 0, nope)});
  planned.push_back(
      {block + "attn_v_b.weight", source.name, head_rows(kv_b, n_heads, nope, nope + v)});
}

std::vector<PlannedWeight> plan(const HfConfig& config, std::vector<SourceWeight> sources) {
  std::vector<PlannedWeight> planned;
  ExpertStacks experts(config.get_uint("n_routed_experts"));
  for (SourceWeight& source : sources) {
    constexpr std::string_view kCorrection = "e_score_correction_bias";
    const LayerName split = split_name(source.name);
    if (experts.take(split, source.weight, planned)) continue;
    if (split.part == "self_attn.kv_b_proj.weight") {
      split_kv_b(config, source, planned);
      continue;
    }
    std::string name = source.name;
    if (name.ends_with(kCorrection)) {
      name.replace(name.size() - kCorrection.size(), kCorrection.size(), "e_score_correction.bias");
    }
    planned.push_back({map_name(name, kNames), std::move(source.name), std::move(source.weight)});
  }
  experts.finish();
  return planned;
}

void add_parameters(const HfConfig& config, MetadataList& metadata) {
  const auto set = [&](std::string_view key, uint32_t value) {
    metadata.set("deepseek2." + std::string(key), value);
  };
  const uint32_t lora = config.get_uint("kv_lora_rank");
  const uint32_t rope = config.get_uint("qk_rope_head_dim");
  // Attention on the latent vector is attention with one KV head.
  set("attention.head_count_kv", 1);
  set("leading_dense_block_count", config.get_uint("first_k_dense_replace"));
  set("vocab_size", config.get_uint("vocab_size"));
  if (const auto q_lora = config.find_uint("q_lora_rank")) set("attention.q_lora_rank", *q_lora);
  set("attention.kv_lora_rank", lora);
  set("attention.key_length", lora + rope);
  set("attention.value_length", lora);
  set("attention.key_length_mla", config.get_uint("qk_nope_head_dim") + rope);
  set("attention.value_length_mla", config.get_uint("v_head_dim"));
  set("expert_feed_forward_length", config.get_uint("moe_intermediate_size"));
  set("expert_count", config.get_uint("n_routed_experts"));
  set("expert_shared_count", config.get_uint("n_shared_experts"));
  metadata.set("deepseek2.expert_weights_scale",
               static_cast<float>(config.get_number("routed_scaling_factor")));
  if (config.find_bool("norm_topk_prob").value_or(false)) {
    metadata.set("deepseek2.expert_weights_norm", true);
  }
  set("rope.dimension_count", rope);
  const RopeParameters parameters = read_rope(config);
  const auto mscale =
      number_member(parameters.values, "mscale_all_dim", "rope_parameters.mscale_all_dim");
  if (mscale) {
    metadata.set("deepseek2.rope.scaling.yarn_log_multiplier", static_cast<float>(0.1 * *mscale));
  }
}

}  // namespace

const Architecture kDeepseek2 = {.name = "deepseek2",
                                 .class_names = kClasses,
                                 .set_defaults = set_defaults,
                                 .is_skipped = is_skipped,
                                 .plan = plan,
                                 .add_parameters = add_parameters};

}  // namespace dsctl::gguf::convert
