// llama: Llama 1 to 3, SmolLM, Mistral and others of that shape. The rows of q and k are put in the
// order of rope on neighbours, in which GGUF files of this architecture are.
#include <array>
#include <cmath>
#include <numbers>

#include "gguf/convert/architecture.h"
#include "gguf/error.h"

namespace dsctl::gguf::convert {
namespace {

constexpr std::array<std::string_view, 4> kClasses = {"LlamaForCausalLM", "LLaMAForCausalLM",
                                                      "MistralForCausalLM", "LlamaModel"};

constexpr std::array<NamePair, 9> kNames{{
    {"input_layernorm", "attn_norm"},
    {"self_attn.q_proj", "attn_q"},
    {"self_attn.k_proj", "attn_k"},
    {"self_attn.v_proj", "attn_v"},
    {"self_attn.o_proj", "attn_output"},
    {"post_attention_layernorm", "ffn_norm"},
    {"mlp.gate_proj", "ffn_gate"},
    {"mlp.up_proj", "ffn_up"},
    {"mlp.down_proj", "ffn_down"},
}};

void set_defaults(HfConfig& config) {
  config.set_default("vocab_size", 32000);
  config.set_default("max_position_embeddings", 2048);
  config.set_default("rms_norm_eps", 1e-6);
  config.set_default("rope_theta", 10000.0);
  config.set_default("num_key_value_heads", config.get_uint("num_attention_heads"));
  config.set_default("head_dim", head_dim(config));
}

bool is_skipped(const HfConfig&, std::string_view) {
  return false;
}

/// Llama 3.1's scaling as one factor for each frequency (as in transformers' rope utilities), in
/// f32 where PyTorch computes in f32.
std::vector<float> llama3_factors(const HfConfig& config, const RopeParameters& rope) {
  const auto number = [&](const char* key, double otherwise) {
    return number_member(rope.values, key, std::string("rope_parameters.") + key)
        .value_or(otherwise);
  };
  const uint32_t dim = head_dim(config);
  const auto base = static_cast<float>(rope.theta.value_or(10000.0));
  const double factor = number("factor", 8.0);
  const double low_freq_factor = number("low_freq_factor", 1.0);
  const double high_freq_factor = number("high_freq_factor", 4.0);
  const double old_context = number("original_max_position_embeddings", 8192);
  const auto low_wavelength = static_cast<float>(old_context / low_freq_factor);
  const auto high_wavelength = static_cast<float>(old_context / high_freq_factor);
  std::vector<float> factors;
  for (uint32_t i = 0; i < dim; i += 2) {
    const float exponent = static_cast<float>(i) / static_cast<float>(dim);
    const float frequency = 1.0F / std::pow(base, exponent);
    const float wavelength = static_cast<float>(2 * std::numbers::pi) / frequency;
    if (wavelength < high_wavelength) {
      factors.push_back(1);
    } else if (wavelength > low_wavelength) {
      factors.push_back(static_cast<float>(factor));
    } else {
      const float smooth =
          (static_cast<float>(old_context) / wavelength - static_cast<float>(low_freq_factor)) /
          static_cast<float>(high_freq_factor - low_freq_factor);
      factors.push_back(1.0F / ((1.0F - smooth) / static_cast<float>(factor) + smooth));
    }
  }
  return factors;
}

std::vector<PlannedWeight> plan(const HfConfig& config, std::vector<SourceWeight> sources) {
  if (config.find_uint("num_local_experts").value_or(0) > 0) {
    throw Error(
        "config.json: num_local_experts: a mixture of experts of this architecture can't "
        "be converted");
  }
  std::vector<PlannedWeight> planned;
  if (const RopeParameters rope = read_rope(config); rope.type == "llama3") {
    planned.push_back(
        {"rope_freqs.weight", "rope_parameters", vector_weight(llama3_factors(config, rope))});
  }
  for (auto& [name, weight] : sources) {
    std::string target = map_name(name, kNames);
    const bool is_q = target.find(".attn_q.") != std::string::npos;
    const bool is_k = target.find(".attn_k.") != std::string::npos;
    if (is_q || is_k) {
      const char* key = is_q ? "num_attention_heads" : "num_key_value_heads";
      try {
        weight = interleaved_weight(std::move(weight), config.get_uint(key));
      } catch (const Error& error) {
        throw Error("tensor \"" + name + "\": " + error.what());
      }
    }
    planned.push_back({std::move(target), std::move(name), std::move(weight)});
  }
  return planned;
}

void add_parameters(const HfConfig& config, MetadataList& metadata) {
  metadata.set("llama.vocab_size", config.get_uint("vocab_size"));
  metadata.set("llama.rope.dimension_count", head_dim(config));
}

}  // namespace

const Architecture kLlama = {.name = "llama",
                             .class_names = kClasses,
                             .set_defaults = set_defaults,
                             .is_skipped = is_skipped,
                             .plan = plan,
                             .add_parameters = add_parameters};

}  // namespace dsctl::gguf::convert
