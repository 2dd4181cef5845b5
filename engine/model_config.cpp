#include "engine/model_config.h"

#include <algorithm>
#include <cmath>
#include <variant>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

// Far above any model, far below what would overflow or make a size check useless.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxDim = 1 << 20;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 4096;
constexpr int64_t kMaxContext = 1 << 28;
constexpr int64_t kMaxVocab = 1 << 24;
constexpr int64_t kMaxExperts = 1 << 16;
constexpr int64_t kMaxSharedExperts = 1 << 10;

RopeScaling scaling_of(const ConfigReader& reader, std::string_view name) {
  if (name == "none") return RopeScaling::kNone;
  if (name == "linear") return RopeScaling::kLinear;
  if (name == "yarn") return RopeScaling::kYarn;
  if (name == "longrope") return RopeScaling::kLongRope;
  throw Error(reader.full_key("rope.scaling.type") + ": \"" + std::string(name) +
              "\" is not supported, expected none, linear, yarn or longrope");
}

/// The number of tokens is the embedding table's: not every file has the key.
int read_vocab_size(const ConfigReader& reader) {
  const gguf::TensorInfo* table = reader.file().find_tensor("token_embd.weight");
  if (table == nullptr) throw Error("token_embd.weight: tensor missing");
  if (table->dims[1] < 1 || table->dims[1] > kMaxVocab) {
    throw Error("token_embd.weight: " + std::to_string(table->dims[1]) + " tokens, expected 1 to " +
                std::to_string(kMaxVocab));
  }
  return static_cast<int>(table->dims[1]);
}

void check_groups(const ConfigReader& reader, const Routing& routing) {
  if (routing.n_experts % routing.n_groups != 0) {
    throw Error(reader.full_key("expert_group_count") + ": " + std::to_string(routing.n_groups) +
                ", expected a divisor of the " + std::to_string(routing.n_experts) + " experts");
  }
  const int n_choice = routing.n_experts / routing.n_groups * routing.n_used_groups;
  if (routing.n_used > n_choice) {
    throw Error(reader.full_key("expert_group_used_count") + ": " +
                std::to_string(routing.n_used_groups) + " groups have " + std::to_string(n_choice) +
                " experts, but " + std::to_string(routing.n_used) + " are used");
  }
}

}  // namespace

ConfigReader::ConfigReader(const gguf::GgufFile& file)
    : file_(file), architecture_(file.architecture()) {}

std::string ConfigReader::full_key(std::string_view key) const {
  return architecture_ + "." + std::string(key);
}

std::optional<int64_t> ConfigReader::find_uniform(std::string_view key) const {
  const std::string name = full_key(key);
  const gguf::Value* value = file_.find(name);
  if (value == nullptr) return std::nullopt;
  const auto* array = std::get_if<gguf::ArrayValue>(&value->data);
  if (array == nullptr) return file_.find_int(name);
  const auto uniform = [&](const auto& elements) {
    if (elements.empty()) throw Error(name + ": an empty array, expected a number");
    for (const auto element : elements) {
      if (element != elements.front()) {
        throw Error(name + ": differs between layers, which " + architecture_ +
                    " models are not supported with");
      }
    }
    return static_cast<int64_t>(elements.front());
  };
  if (const auto* ints = std::get_if<std::vector<int64_t>>(&array->elements)) return uniform(*ints);
  if (const auto* uints = std::get_if<std::vector<uint64_t>>(&array->elements)) {
    return uniform(*uints);
  }
  throw Error(name + ": an array without integers, expected a number");
}

std::optional<int> ConfigReader::find_int(std::string_view key, int64_t max) const {
  const auto value = find_uniform(key);
  if (!value) return std::nullopt;
  if (*value < 1 || *value > max) {
    throw Error(full_key(key) + ": " + std::to_string(*value) + ", expected 1 to " +
                std::to_string(max));
  }
  return static_cast<int>(*value);
}

int ConfigReader::get_int(std::string_view key, int64_t max) const {
  const auto value = find_int(key, max);
  if (!value) throw Error(full_key(key) + ": key missing, the model needs it");
  return *value;
}

std::optional<double> ConfigReader::find_float(std::string_view key) const {
  const auto value = file_.find_float(full_key(key));
  if (value && !std::isfinite(*value)) throw Error(full_key(key) + ": not a finite number");
  return value;
}

int ConfigReader::get_count(std::string_view key, int64_t max) const {
  const int64_t value = find_uniform(key).value_or(0);
  if (value < 0 || value > max) {
    throw Error(full_key(key) + ": " + std::to_string(value) + ", expected 0 to " +
                std::to_string(max));
  }
  return static_cast<int>(value);
}

double ConfigReader::get_float(std::string_view key) const {
  const auto value = find_float(key);
  if (!value) throw Error(full_key(key) + ": key missing, the model needs it");
  return *value;
}

std::optional<std::string_view> ConfigReader::find_string(std::string_view key) const {
  return file_.find_string(full_key(key));
}

std::optional<bool> ConfigReader::find_bool(std::string_view key) const {
  return file_.find_bool(full_key(key));
}

RopeConfig read_rope_config(const ConfigReader& reader, RopeStyle style, int head_dim,
                            int context_length) {
  RopeConfig rope;
  RopeParams& params = rope.params;
  params.style = style;
  params.n_dims = reader.find_int("rope.dimension_count", kMaxHeadDim).value_or(head_dim);
  if (params.n_dims > head_dim || params.n_dims % 2 != 0) {
    throw Error(reader.full_key("rope.dimension_count") + ": " + std::to_string(params.n_dims) +
                ", expected an even number up to the head size " + std::to_string(head_dim));
  }
  params.freq_base = reader.find_float("rope.freq_base").value_or(10000.0);
  if (params.freq_base <= 1.0) {
    throw Error(reader.full_key("rope.freq_base") + ": " + std::to_string(params.freq_base) +
                ", expected more than 1");
  }
  const auto type = reader.find_string("rope.scaling.type");
  auto factor = reader.find_float("rope.scaling.factor");
  // The key of files from before there were kinds of scaling.
  if (!factor) factor = reader.find_float("rope.scale_linear");
  if (type) {
    rope.scaling = scaling_of(reader, *type);
  } else if (factor) {
    rope.scaling = RopeScaling::kLinear;
  }
  if (factor && *factor < 0.0) {
    throw Error(reader.full_key("rope.scaling.factor") + ": " + std::to_string(*factor) +
                ", expected a positive number");
  }
  const bool scales = rope.scaling == RopeScaling::kLinear || rope.scaling == RopeScaling::kYarn;
  if (scales && factor.value_or(0.0) != 0.0) params.freq_scale = 1.0 / *factor;
  params.attn_factor = reader.find_float("rope.scaling.attn_factor").value_or(1.0);
  params.n_original_context =
      reader.find_int("rope.scaling.original_context_length", kMaxContext).value_or(context_length);
  if (rope.scaling == RopeScaling::kYarn) {
    params.ext_factor = reader.find_float("rope.scaling.yarn_ext_factor").value_or(1.0);
    params.attn_factor =
        reader.find_float("rope.scaling.yarn_attn_factor").value_or(params.attn_factor);
    params.beta_fast = reader.find_float("rope.scaling.yarn_beta_fast").value_or(32.0);
    params.beta_slow = reader.find_float("rope.scaling.yarn_beta_slow").value_or(1.0);
    if (params.beta_fast <= 0.0 || params.beta_slow <= 0.0) {
      throw Error(reader.full_key("rope.scaling.yarn_beta_fast") +
                  ": expected positive numbers for fast and slow");
    }
  }
  return rope;
}

ModelConfig read_base_config(const ConfigReader& reader) {
  ModelConfig config;
  config.architecture = reader.architecture();
  config.n_layers = reader.get_int("block_count", kMaxLayers);
  config.dim = reader.get_int("embedding_length", kMaxDim);
  config.n_heads = reader.get_int("attention.head_count", kMaxHeads);
  config.context_length = reader.get_int("context_length", kMaxContext);
  config.vocab_size = read_vocab_size(reader);
  config.norm_eps = static_cast<float>(reader.get_float("attention.layer_norm_rms_epsilon"));
  if (config.norm_eps < 0.0f) {
    throw Error(reader.full_key("attention.layer_norm_rms_epsilon") + ": negative");
  }
  config.attention_softcap =
      static_cast<float>(reader.find_float("attn_logit_softcapping").value_or(0.0));
  config.logit_softcap =
      static_cast<float>(reader.find_float("final_logit_softcapping").value_or(0.0));
  return config;
}

void read_attention_config(const ConfigReader& reader, RopeStyle style, ModelConfig& config) {
  if (!reader.find_bool("attention.causal").value_or(true)) {
    throw Error(reader.full_key("attention.causal") +
                ": false, attention to later tokens is not supported");
  }
  config.n_kv_heads =
      reader.find_int("attention.head_count_kv", kMaxHeads).value_or(config.n_heads);
  if (config.n_heads % config.n_kv_heads != 0) {
    throw Error(reader.full_key("attention.head_count_kv") + ": " +
                std::to_string(config.n_kv_heads) + ", expected a divisor of the " +
                std::to_string(config.n_heads) + " heads");
  }
  const auto key_length = reader.find_int("attention.key_length", kMaxHeadDim);
  if (!key_length &&
      (config.dim % config.n_heads != 0 || config.dim / config.n_heads > kMaxHeadDim)) {
    throw Error(reader.full_key("attention.head_count") + ": " + std::to_string(config.n_heads) +
                ", expected a divisor of the embedding length " + std::to_string(config.dim));
  }
  config.head_dim = key_length.value_or(config.dim / config.n_heads);
  const int value_length =
      reader.find_int("attention.value_length", kMaxHeadDim).value_or(config.head_dim);
  if (value_length != config.head_dim) {
    throw Error(reader.full_key("attention.value_length") + ": " + std::to_string(value_length) +
                " differs from the key length " + std::to_string(config.head_dim) +
                ", which is not supported");
  }
  const double scale = reader.find_float("attention.scale").value_or(0.0);
  config.attention_scale =
      static_cast<float>(scale != 0.0 ? scale : 1.0 / std::sqrt(config.head_dim));
  config.rope = read_rope_config(reader, style, config.head_dim, config.context_length);
  config.local_rope = config.rope;
}

ModelConfig read_common_config(const ConfigReader& reader, RopeStyle style) {
  ModelConfig config = read_base_config(reader);
  config.ffn_dim = reader.get_int("feed_forward_length", kMaxDim);
  read_attention_config(reader, style, config);
  if (reader.file().find_int(reader.full_key("expert_count")).value_or(0) > 0) {
    throw Error(reader.full_key("expert_count") +
                ": mixtures of experts are not supported for this architecture");
  }
  return config;
}

MoeConfig read_moe_config(const ConfigReader& reader, const Routing& defaults) {
  MoeConfig moe;
  Routing& routing = moe.routing;
  routing = defaults;
  routing.n_experts = reader.get_int("expert_count", kMaxExperts);
  routing.n_used = reader.get_int("expert_used_count", routing.n_experts);
  switch (const int gating = reader.get_count("expert_gating_func", 255); gating) {
    case 0:  // files from before there was more than one kind
      break;
    case 1:
      routing.gating = ExpertGating::kSoftmax;
      break;
    case 2:
      routing.gating = ExpertGating::kSigmoid;
      break;
    default:
      throw Error(reader.full_key("expert_gating_func") + ": " + std::to_string(gating) +
                  " is not supported, expected 1 (softmax) or 2 (sigmoid)");
  }
  routing.group_score =
      routing.gating == ExpertGating::kSigmoid ? GroupScore::kBestTwo : GroupScore::kBest;
  routing.is_normalised = reader.find_bool("expert_weights_norm").value_or(defaults.is_normalised);
  const double scale = reader.find_float("expert_weights_scale").value_or(0.0);
  if (scale != 0.0) routing.scale = static_cast<float>(scale);
  routing.n_groups = std::max(1, reader.get_count("expert_group_count", routing.n_experts));
  routing.n_used_groups =
      reader.find_int("expert_group_used_count", routing.n_groups).value_or(routing.n_groups);
  check_groups(reader, routing);

  moe.ffn_dim = reader.get_int("expert_feed_forward_length", kMaxDim);
  moe.shared_ffn_dim = reader.get_count("expert_shared_feed_forward_length", kMaxDim);
  if (moe.shared_ffn_dim == 0) {
    moe.shared_ffn_dim = reader.get_count("expert_shared_count", kMaxSharedExperts) * moe.ffn_dim;
  }
  moe.n_dense_layers = reader.get_count("leading_dense_block_count", kMaxLayers);
  return moe;
}

}  // namespace dsctl::engine
