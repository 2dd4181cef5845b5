// gemma3: the text part of Gemma 3. Its norms multiply by 1 + weight; GGUF files have the sum.
#include <array>

#include "gguf/convert/architecture.h"
#include "gguf/error.h"

namespace dsctl::gguf::convert {
namespace {

constexpr std::array<std::string_view, 2> kClasses = {"Gemma3ForCausalLM",
                                                      "Gemma3ForConditionalGeneration"};

constexpr std::array<NamePair, 13> kNames{{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "post_attention_norm"},
    {"pre_feedforward_layernorm", "ffn_norm"},
    {"post_feedforward_layernorm", "post_ffw_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};

void set_defaults(HfConfig& config) {
  config.set_default("vocab_size", 262208);
  config.set_default("hidden_size", 2304);
  config.set_default("intermediate_size", 9216);
  config.set_default("num_hidden_layers", 26);
  config.set_default("num_attention_heads", 8);
  config.set_default("num_key_value_heads", 4);
  config.set_default("head_dim", 256);
  config.set_default("max_position_embeddings", 131072);
  config.set_default("rms_norm_eps", 1e-6);
  config.set_default("sliding_window", 4096);
  config.set_default("rope_theta", 1e6);
  config.set_default("rope_local_base_freq", 10000.0);
}

bool is_skipped(const HfConfig&, std::string_view) {
  return false;
}

std::vector<PlannedWeight> plan(const HfConfig& config, std::vector<SourceWeight> sources) {
  std::vector<PlannedWeight> planned;
  for (auto& [name, weight] : sources) {
    std::string target = map_name(name, kNames);
    if (name.ends_with("norm.weight")) weight = shifted_weight(std::move(weight), 1.0F);
    // Rows for tokens that the vocabulary does not have.
    if (target == "token_embd.weight") {
      weight = first_rows(std::move(weight), config.get_uint("vocab_size"));
    }
    planned.push_back({std::move(target), std::move(name), std::move(weight)});
  }
  return planned;
}

void add_parameters(const HfConfig& config, MetadataList& metadata) {
  if (config.find_number("attn_logit_softcapping")) {
    throw Error("config.json: attn_logit_softcapping: Gemma 3 has none");
  }
  const auto softcap = config.find_number("final_logit_softcapping");
  if (softcap && *softcap != 0) {
    metadata.set("gemma3.final_logit_softcapping", static_cast<float>(*softcap));
  }
  if (config.find_uint("sliding_window_pattern") != 1U) {
    metadata.set("gemma3.attention.sliding_window", config.get_uint("sliding_window"));
  }
}

}  // namespace

const Architecture kGemma3 = {.name = "gemma3",
                              .class_names = kClasses,
                              .set_defaults = set_defaults,
                              .is_skipped = is_skipped,
                              .plan = plan,
                              .add_parameters = add_parameters,
                              .has_no_space_prefix = true};

}  // namespace dsctl::gguf::convert
