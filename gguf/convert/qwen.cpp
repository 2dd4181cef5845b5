// qwen2 (with biases on q, k and v) and qwen3 (with norms on q and k): Qwen 2 to 3.
#include <array>

#include "gguf/convert/architecture.h"

namespace dsctl::gguf::convert {
namespace {

constexpr std::array<std::string_view, 2> kQwen2Classes = {"Qwen2ForCausalLM", "Qwen2Model"};
constexpr std::array<std::string_view, 2> kQwen3Classes = {"Qwen3ForCausalLM", "Qwen3Model"};

constexpr std::array<NamePair, 11> kNames{{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.q_norm", "attn_q_norm"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.k_norm", "attn_k_norm"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};

void set_common_defaults(HfConfig& config) {
  config.set_default("vocab_size", 151936);
  config.set_default("max_position_embeddings", 32768);
  config.set_default("rms_norm_eps", 1e-6);
  config.set_default("rope_theta", 10000.0);
  config.set_default("num_key_value_heads", config.get_uint("num_attention_heads"));
}

void set_qwen3_defaults(HfConfig& config) {
  set_common_defaults(config);
  config.set_default("head_dim", 128);
}

bool is_skipped(const HfConfig&, std::string_view) {
  return false;
}

std::vector<PlannedWeight> plan(const HfConfig&, std::vector<SourceWeight> sources) {
  std::vector<PlannedWeight> planned;
  for (auto& [name, weight] : sources) {
    std::string target = map_name(name, kNames);
    planned.push_back({std::move(target), std::move(name), std::move(weight)});
  }
  return planned;
}

void add_parameters(const HfConfig&, MetadataList&) {}

}  // namespace

const Architecture kQwen2 = {.name = "qwen2",
                             .class_names = kQwen2Classes,
                             .set_defaults = set_common_defaults,
                             .is_skipped = is_skipped,
                             .plan = plan,
                             .add_parameters = add_parameters};
const Architecture kQwen3 = {.name = "qwen3",
                             .class_names = kQwen3Classes,
                             .set_defaults = set_qwen3_defaults,
                             .is_skipped = is_skipped,
                             .plan = plan,
                             .add_parameters = add_parameters};

}  // namespace dsctl::gguf::convert
