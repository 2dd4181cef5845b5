#include "engine/model_shapes.h"

#include <map>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace dsctl::engine {
namespace {

/// Which layers have the better type in a Q4_K_M (llama.cpp's use_more_bits).
bool has_more_bits(int layer_idx, int n_layers) {
  const int eighth = n_layers / 8;
  return layer_idx < eighth || layer_idx >= 7 * n_layers / 8 || (layer_idx - eighth) % 3 == 2;
}

/// Declares a tensor in `dtype`, or in what llama.cpp falls back to where rows are no whole blocks.
void declare(gguf::GgufWriter& writer, const std::string& name, gguf::DType dtype,
             std::vector<int64_t> dims) {
  using gguf::DType;
  if (dims[0] % gguf::dtype_info(dtype).block_elems != 0)
    dtype = dtype == DType::Q6_K ? DType::Q8_0 : DType::Q5_0;
  writer.declare_tensor(name, dtype, dims);
}

/// The names of `model_shape_names`.
const std::map<std::string, const DenseModel*, std::less<>>& dense_models() {
  static const std::map<std::string, const DenseModel*, std::less<>> models{
      {"llama3-8b", &kLlama3_8b},   {"llama3-70b", &kLlama3_70b}, {"qwen2.5-1.5b", &kQwen2_1b},
      {"qwen2.5-7b", &kQwen2_7b},   {"qwen2.5-14b", &kQwen2_14b}, {"qwen2.5-32b", &kQwen2_32b},
      {"qwen2.5-72b", &kQwen2_72b}, {"gemma3-1b", &kGemma3_1b},
  };
  return models;
}

}  // namespace

gguf::GgufWriter dense_header(const DenseModel& model) {
  using gguf::DType;
  gguf::GgufWriter writer;
  const std::string arch = model.architecture + ".";
  writer.add("general.architecture", model.architecture);
  writer.add("general.file_type", uint32_t{15});
  const auto add = [&](const char* key, int value) {
    writer.add(arch + key, static_cast<uint32_t>(value));
  };
  add("block_count", model.n_layers);
  add("embedding_length", model.dim);
  add("context_length", model.context_length);
  add("feed_forward_length", model.ffn_dim);
  add("attention.head_count", model.n_heads);
  add("attention.head_count_kv", model.n_kv_heads);
  add("attention.key_length", model.head_dim);
  add("attention.value_length", model.head_dim);
  if (model.window > 0) add("attention.sliding_window", model.window);
  writer.add(arch + "attention.layer_norm_rms_epsilon", 1e-6f);
  writer.add(arch + "rope.freq_base", model.rope_base);
  const int64_t dim = model.dim;
  const int64_t q = int64_t{model.n_heads} * model.head_dim;
  const int64_t kv = int64_t{model.n_kv_heads} * model.head_dim;
  declare(writer, "token_embd.weight", model.is_tied ? DType::Q6_K : DType::Q4_K,
          {dim, model.vocab_size});
  for (int i = 0; i < model.n_layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    const DType better = has_more_bits(i, model.n_layers) ? DType::Q6_K : DType::Q4_K;
    writer.declare_tensor(blk + "attn_norm.weight", DType::F32, {dim});
    declare(writer, blk + "attn_q.weight", DType::Q4_K, {dim, q});
    declare(writer, blk + "attn_k.weight", DType::Q4_K, {dim, kv});
    declare(writer, blk + "attn_v.weight", better, {dim, kv});
    declare(writer, blk + "attn_output.weight", DType::Q4_K, {q, dim});
    if (model.has_bias) {
      writer.declare_tensor(blk + "attn_q.bias", DType::F32, {q});
      writer.declare_tensor(blk + "attn_k.bias", DType::F32, {kv});
      writer.declare_tensor(blk + "attn_v.bias", DType::F32, {kv});
    }
    if (model.is_gemma) {
      writer.declare_tensor(blk + "attn_q_norm.weight", DType::F32, {model.head_dim});
      writer.declare_tensor(blk + "attn_k_norm.weight", DType::F32, {model.head_dim});
      writer.declare_tensor(blk + "post_attention_norm.weight", DType::F32, {dim});
      writer.declare_tensor(blk + "post_ffw_norm.weight", DType::F32, {dim});
    }
    writer.declare_tensor(blk + "ffn_norm.weight", DType::F32, {dim});
    declare(writer, blk + "ffn_gate.weight", DType::Q4_K, {dim, model.ffn_dim});
    declare(writer, blk + "ffn_up.weight", DType::Q4_K, {dim, model.ffn_dim});
    declare(writer, blk + "ffn_down.weight", better, {model.ffn_dim, dim});
  }
  writer.declare_tensor("output_norm.weight", DType::F32, {dim});
  if (!model.is_tied) declare(writer, "output.weight", DType::Q6_K, {dim, model.vocab_size});
  return writer;
}

gguf::GgufWriter r1_header() {
  using gguf::DType;
  constexpr int kLayers = 61;
  constexpr int64_t kDim = 7168;
  gguf::GgufWriter writer;
  writer.add("general.architecture", "deepseek2");
  writer.add("general.file_type", uint32_t{15});
  for (const auto& [key, value] :
       std::vector<std::pair<const char*, uint32_t>>{{"block_count", 61},
                                                     {"context_length", 163840},
                                                     {"embedding_length", 7168},
                                                     {"feed_forward_length", 18432},
                                                     {"attention.head_count", 128},
                                                     {"attention.head_count_kv", 128},
                                                     {"leading_dense_block_count", 3},
                                                     {"expert_count", 256},
                                                     {"expert_used_count", 8},
                                                     {"expert_shared_count", 1},
                                                     {"expert_feed_forward_length", 2048},
                                                     {"attention.q_lora_rank", 1536},
                                                     {"attention.kv_lora_rank", 512},
                                                     {"attention.key_length", 192},
                                                     {"attention.value_length", 128},
                                                     {"rope.dimension_count", 64},
                                                     {"rope.scaling.original_context_length", 4096},
                                                     {"expert_group_count", 8},
                                                     {"expert_group_used_count", 4},
                                                     {"expert_gating_func", 2},
                                                     {"vocab_size", 129280}}) {
    writer.add(std::string("deepseek2.") + key, value);
  }
  writer.add("deepseek2.attention.layer_norm_rms_epsilon", 1e-6f);
  writer.add("deepseek2.expert_weights_scale", 2.5f);
  writer.add("deepseek2.expert_weights_norm", true);
  writer.add("deepseek2.rope.freq_base", 1e4f);
  writer.add("deepseek2.rope.scaling.type", "yarn");
  writer.add("deepseek2.rope.scaling.factor", 40.0f);
  writer.add("deepseek2.rope.scaling.yarn_log_multiplier", 0.1f);
  writer.declare_tensor("token_embd.weight", DType::Q4_K, {kDim, 129280});
  for (int i = 0; i < kLayers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    const DType better = has_more_bits(i, kLayers) ? DType::Q6_K : DType::Q4_K;
    writer.declare_tensor(blk + "attn_norm.weight", DType::F32, {kDim});
    writer.declare_tensor(blk + "attn_q_a.weight", DType::Q4_K, {kDim, 1536});
    writer.declare_tensor(blk + "attn_q_a_norm.weight", DType::F32, {1536});
    writer.declare_tensor(blk + "attn_q_b.weight", DType::Q4_K, {1536, 24576});
    writer.declare_tensor(blk + "attn_kv_a_mqa.weight", DType::Q4_K, {kDim, 576});
    writer.declare_tensor(blk + "attn_kv_a_norm.weight", DType::F32, {512});
    writer.declare_tensor(blk + "attn_kv_b.weight", DType::Q4_K, {512, 32768});
    writer.declare_tensor(blk + "attn_output.weight", DType::Q4_K, {16384, kDim});
    writer.declare_tensor(blk + "ffn_norm.weight", DType::F32, {kDim});
    if (i < 3) {
      writer.declare_tensor(blk + "ffn_gate.weight", DType::Q4_K, {kDim, 18432});
      writer.declare_tensor(blk + "ffn_up.weight", DType::Q4_K, {kDim, 18432});
      writer.declare_tensor(blk + "ffn_down.weight", better, {18432, kDim});
      continue;
    }
    writer.declare_tensor(blk + "ffn_gate_inp.weight", DType::F32, {kDim, 256});
    writer.declare_tensor(blk + "exp_probs_b.bias", DType::F32, {256});
    writer.declare_tensor(blk + "ffn_gate_exps.weight", DType::Q4_K, {kDim, 2048, 256});
    writer.declare_tensor(blk + "ffn_up_exps.weight", DType::Q4_K, {kDim, 2048, 256});
    writer.declare_tensor(blk + "ffn_down_exps.weight", better, {2048, kDim, 256});
    writer.declare_tensor(blk + "ffn_gate_shexp.weight", DType::Q4_K, {kDim, 2048});
    writer.declare_tensor(blk + "ffn_up_shexp.weight", DType::Q4_K, {kDim, 2048});
    writer.declare_tensor(blk + "ffn_down_shexp.weight", better, {2048, kDim});
  }
  writer.declare_tensor("output_norm.weight", DType::F32, {kDim});
  writer.declare_tensor("output.weight", DType::Q6_K, {kDim, 129280});
  return writer;
}

std::string model_shape_names() {
  std::string names;
  for (const auto& entry : dense_models())
    names += entry.first + ", ";
  return names + "deepseek-r1";
}

bool is_model_shape(std::string_view name) {
  return name == "deepseek-r1" || dense_models().count(name) > 0;
}

gguf::GgufFile open_model_shape(std::string_view name) {
  if (name == "deepseek-r1") return open_header(r1_header(), std::string(name));
  const auto found = dense_models().find(name);
  if (found == dense_models().end()) {
    throw Error(std::string(name) + ": unknown shape, expected one of " + model_shape_names());
  }
  return open_header(dense_header(*found->second), std::string(name));
}

gguf::GgufFile open_header(const gguf::GgufWriter& writer, const std::string& name) {
  const gguf::GgufLayout layout = writer.layout();
  gguf::PartialFile file;
  file.path = name;
  file.size_bytes = layout.size_bytes;
  const auto bytes = std::as_bytes(std::span(layout.header));
  file.prefix.assign(bytes.begin(), bytes.end());
  return gguf::GgufFile::open_headers({file});
}

}  // namespace dsctl::engine
