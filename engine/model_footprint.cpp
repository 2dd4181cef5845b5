#include "engine/model_footprint.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

constexpr int64_t kMaxLayers = 100'000;
constexpr int64_t kMaxDim = 1 << 24;
constexpr int64_t kMaxExperts = 1 << 20;
constexpr int64_t kMaxContext = int64_t{1} << 40;

/// "attn_q.weight" of "blk.3.attn_q.weight"; the whole name of a tensor outside the layers.
std::string_view suffix_of(std::string_view name) {
  if (layer_of(name) < 0) return name;
  return name.substr(name.find('.', 4) + 1);
}

bool starts_with_any(std::string_view text, std::initializer_list<std::string_view> starts) {
  return std::any_of(starts.begin(), starts.end(),
                     [text](std::string_view start) { return text.starts_with(start); });
}

/// Reads "<architecture>.<key>", which may be one number or one for each layer.
class Keys {
 public:
  explicit Keys(const gguf::GgufFile& file)
      : file_(file), prefix_(std::string(file.architecture()) + ".") {}

  /// Nothing when the key is missing, too large or no number: a plan goes without what it can.
  std::optional<int64_t> find(std::string_view key, int64_t max) const {
    const std::vector<int64_t> values = find_all(key, max);
    if (values.empty()) return std::nullopt;
    return *std::max_element(values.begin(), values.end());
  }
  int64_t get(std::string_view key, int64_t max) const {
    const auto value = find(key, max);
    if (!value)
      throw Error(prefix_ + std::string(key) + ": missing, or no number up to " +
                  std::to_string(max));
    return *value;
  }
  /// One value, or one for each layer; empty when the key is missing or a value can't be.
  std::vector<int64_t> find_all(std::string_view key, int64_t max) const {
    const gguf::Value* value = file_.find(prefix_ + std::string(key));
    if (!value) return {};
    std::vector<int64_t> values;
    if (const auto* number = std::get_if<uint64_t>(&value->data)) {
      values.push_back(static_cast<int64_t>(std::min<uint64_t>(*number, INT64_MAX)));
    } else if (const auto* signed_number = std::get_if<int64_t>(&value->data)) {
      values.push_back(*signed_number);
    } else if (const auto* array = std::get_if<gguf::ArrayValue>(&value->data)) {
      if (const auto* wide = std::get_if<std::vector<uint64_t>>(&array->elements)) {
        for (const uint64_t element : *wide)
          values.push_back(static_cast<int64_t>(std::min<uint64_t>(element, INT64_MAX)));
      } else if (const auto* narrow = std::get_if<std::vector<int64_t>>(&array->elements)) {
        values = *narrow;
      }
    }
    const bool sound =
        std::all_of(values.begin(), values.end(), [max](int64_t v) { return v >= 0 && v <= max; });
    return sound ? values : std::vector<int64_t>();
  }

 private:
  const gguf::GgufFile& file_;
  std::string prefix_;
};

int64_t at_layer(const std::vector<int64_t>& values, int layer_idx, int64_t otherwise) {
  if (values.empty()) return otherwise;
  if (values.size() == 1) return values[0];
  const auto idx = static_cast<size_t>(layer_idx);
  return idx < values.size() ? values[idx] : otherwise;
}

/// Which layers have the window. A period n means that every n-th layer sees everything.
std::vector<bool> local_layers(const Keys& keys, const std::string& architecture, int n_layers) {
  std::vector<bool> local(static_cast<size_t>(n_layers), false);
  const std::vector<int64_t> pattern = keys.find_all("attention.sliding_window_pattern", kMaxDim);
  if (pattern.size() > 1) {
    for (size_t i = 0; i < local.size() && i < pattern.size(); ++i)
      local[i] = pattern[i] != 0;
    return local;
  }
  int64_t period = 0;
  if (architecture == "gemma3") period = 6;
  if (architecture == "gemma2" || architecture == "gpt-oss") period = 2;
  if (pattern.size() == 1) period = pattern[0];
  if (architecture == "phi3" && period == 0) period = 1 << 30;  // no layer sees everything
  for (size_t i = 0; i < local.size() && period > 0; ++i)
    local[i] = static_cast<int64_t>(i) % period != period - 1;
  return local;
}

bool has_attention(const gguf::GgufFile& file, int layer_idx) {
  const std::string prefix = "blk." + std::to_string(layer_idx) + ".";
  return file.find_tensor(prefix + "attn_k.weight") ||
         file.find_tensor(prefix + "attn_qkv.weight") ||
         file.find_tensor(prefix + "attn_kv_a_mqa.weight");
}

KvFootprint measure_kv(const gguf::GgufFile& file, const Keys& keys, const ModelFootprint& model) {
  KvFootprint kv;
  kv.n_heads = static_cast<int>(keys.find("attention.head_count", kMaxDim).value_or(0));
  const int64_t latent = keys.find("attention.kv_lora_rank", kMaxDim).value_or(0);
  const int64_t rope = keys.find("rope.dimension_count", kMaxDim).value_or(0);
  const int64_t per_head = kv.n_heads > 0 ? model.dim / kv.n_heads : 0;
  int64_t key = keys.find("attention.key_length", kMaxDim).value_or(per_head);
  int64_t value = keys.find("attention.value_length", kMaxDim).value_or(per_head);
  if (latent > 0) {
    // Files since April 2025 give the latent sizes there, and the heads' own under these names.
    key = keys.find("attention.key_length_mla", kMaxDim).value_or(key);
    value = keys.find("attention.value_length_mla", kMaxDim).value_or(value);
    kv.latent_dim = static_cast<int>(latent + rope);
  }
  kv.head_dim = static_cast<int>(key);
  kv.window = static_cast<int>(keys.find("attention.sliding_window", INT32_MAX).value_or(0));
  const std::vector<bool> local = local_layers(keys, model.architecture, model.n_layers);
  const auto kv_heads = keys.find_all("attention.head_count_kv", kMaxDim);
  for (int i = 0; i < model.n_layers; ++i) {
    if (!has_attention(file, i)) continue;
    const int64_t heads = at_layer(kv_heads, i, kv.n_heads);
    ++kv.n_layers;
    kv.n_kv_heads = std::max(kv.n_kv_heads, static_cast<int>(heads));
    const int64_t values = latent > 0 ? kv.latent_dim : heads * (key + value);
    if (latent > 0) kv.expanded_values += kv.n_heads * (key + value);
    if (kv.window > 0 && local[static_cast<size_t>(i)]) {
      ++kv.n_window_layers;
      kv.window_values += values;
    } else {
      kv.full_values += values;
    }
  }
  if (kv.n_window_layers == 0) kv.window = 0;
  return kv;
}

void add(WeightTotal& total, const gguf::TensorInfo& tensor, int64_t read_num, int64_t read_den) {
  ++total.n_tensors;
  total.n_parameters += tensor.n_elems();
  total.size_bytes += tensor.size_bytes;
  // Halves first: sizes are below 2^63, their products with a count of experts are not.
  const auto part = [&](int64_t n) {
    return n / read_den * read_num + n % read_den * read_num / read_den;
  };
  total.read_parameters += part(tensor.n_elems());
  total.read_bytes += part(tensor.size_bytes);
}

}  // namespace

std::string_view weight_kind_name(WeightKind kind) {
  switch (kind) {
    case WeightKind::kEmbedding:
      return "embedding";
    case WeightKind::kAttention:
      return "attention";
    case WeightKind::kDenseFfn:
      return "feed-forward";
    case WeightKind::kRoutedExperts:
      return "routed experts";
    case WeightKind::kSharedExperts:
      return "shared experts";
    case WeightKind::kRouter:
      return "router";
    case WeightKind::kHead:
      return "head";
    case WeightKind::kOther:
      return "norms and others";
    case WeightKind::kSkipped:
      return "not used";
  }
  return "";
}

int layer_of(std::string_view tensor_name) {
  if (!tensor_name.starts_with("blk.")) return -1;
  int layer = -1;
  const char* end = tensor_name.data() + tensor_name.size();
  const auto parsed = std::from_chars(tensor_name.data() + 4, end, layer);
  const bool sound = parsed.ec == std::errc() && parsed.ptr != end && *parsed.ptr == '.';
  return sound && layer >= 0 ? layer : -1;
}

WeightKind weight_kind(std::string_view tensor_name, int n_layers) {
  const int layer = layer_of(tensor_name);
  const std::string_view suffix = suffix_of(tensor_name);
  if (layer >= n_layers || suffix.starts_with("nextn.")) return WeightKind::kSkipped;
  if (layer < 0) {
    if (tensor_name == "token_embd.weight") return WeightKind::kEmbedding;
    if (tensor_name == "output.weight") return WeightKind::kHead;
    return WeightKind::kOther;
  }
  if (suffix.find("norm") != std::string_view::npos) return WeightKind::kOther;
  if (suffix.starts_with("attn_")) return WeightKind::kAttention;
  if (starts_with_any(suffix, {"ffn_gate_inp", "exp_probs_b"})) return WeightKind::kRouter;
  if (!suffix.starts_with("ffn_")) return WeightKind::kOther;
  if (suffix.find("_shexp") != std::string_view::npos) return WeightKind::kSharedExperts;
  if (suffix.find("_exps") != std::string_view::npos) return WeightKind::kRoutedExperts;
  // Files of 2023 have each expert of its own: ffn_gate.5.weight.
  const size_t dot = suffix.find('.');
  const bool numbered = dot + 1 < suffix.size() && suffix[dot + 1] >= '0' && suffix[dot + 1] <= '9';
  return numbered ? WeightKind::kRoutedExperts : WeightKind::kDenseFfn;
}

int64_t KvFootprint::windowed_values(int64_t n_tokens) const {
  return full_values * n_tokens + window_values * std::min<int64_t>(n_tokens, window);
}

double ModelFootprint::bits_per_weight() const {
  if (total.n_parameters == 0) return 0;
  return 8.0 * static_cast<double>(total.size_bytes) / static_cast<double>(total.n_parameters);
}

ModelFootprint measure_model(const gguf::GgufFile& file) {
  ModelFootprint model;
  model.architecture = std::string(file.architecture());
  const Keys keys(file);
  const int64_t n_blocks = keys.get("block_count", kMaxLayers);
  const int64_t n_extra = keys.find("nextn_predict_layers", kMaxLayers).value_or(0);
  model.n_layers = static_cast<int>(n_extra < n_blocks ? n_blocks - n_extra : n_blocks);
  model.dim = static_cast<int>(keys.get("embedding_length", kMaxDim));
  model.context_length = keys.find("context_length", kMaxContext).value_or(0);
  const gguf::TensorInfo* embedding = file.find_tensor("token_embd.weight");
  model.vocab_size = embedding ? embedding->dims[1] : 0;
  model.is_tied = embedding && !file.find_tensor("output.weight");
  model.n_experts = static_cast<int>(keys.find("expert_count", kMaxExperts).value_or(0));
  model.n_used_experts = static_cast<int>(std::min<int64_t>(
      keys.find("expert_used_count", kMaxExperts).value_or(model.n_experts), model.n_experts));
  model.kinds.resize(kNumWeightKinds);
  model.layers.resize(static_cast<size_t>(model.n_layers));
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    const WeightKind kind = weight_kind(tensor.name, model.n_layers);
    int64_t read_num = 1;
    int64_t read_den = 1;
    if (kind == WeightKind::kRoutedExperts && model.n_experts > 0) {
      read_num = model.n_used_experts;
      read_den = model.n_experts;
    }
    // A row of the table is a few kilobytes, unless the table is the head as well.
    if (kind == WeightKind::kEmbedding && !model.is_tied) read_num = 0;
    if (kind == WeightKind::kSkipped) read_num = 0;
    add(model.total, tensor, read_num, read_den);
    add(model.kinds[static_cast<size_t>(kind)], tensor, read_num, read_den);
    const int layer = layer_of(tensor.name);
    if (layer >= 0 && layer < model.n_layers)
      add(model.layers[static_cast<size_t>(layer)], tensor, read_num, read_den);
  }
  model.types = gguf::type_totals(file);
  model.kv = measure_kv(file, keys, model);
  return model;
}

}  // namespace dsctl::engine
