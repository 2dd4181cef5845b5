// Headers of well-known models, with their dims and the types that llama.cpp's Q4_K_M gives their
// tensors, made of nothing else: gigabytes that need no disk.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"

namespace dsctl::tests {

/// Which layers have the better type in a Q4_K_M (llama.cpp's use_more_bits).
inline bool has_more_bits(int layer_idx, int n_layers) {
  const int eighth = n_layers / 8;
  return layer_idx < eighth || layer_idx >= 7 * n_layers / 8 || (layer_idx - eighth) % 3 == 2;
}

struct DenseModel {
  std::string architecture = "llama";
  int n_layers = 0;
  int dim = 0;
  int n_heads = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  int ffn_dim = 0;
  int vocab_size = 0;
  int context_length = 0;
  int window = 0;
  bool has_bias = false;
  bool is_tied = false;
  bool is_gemma = false;
};

inline const DenseModel kLlama3_8b{"llama", 32, 4096, 32, 8, 128, 14336, 128256, 8192};
inline const DenseModel kLlama3_70b{"llama", 80, 8192, 64, 8, 128, 28672, 128256, 131072};
inline const DenseModel kQwen2_1b{"qwen2", 28,     1536,   12, 2,    128,
                                  8960,    151936, 131072, 0,  true, true};
inline const DenseModel kQwen2_7b{"qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 131072, 0, true};
inline const DenseModel kQwen2_14b{"qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 131072, 0, true};
inline const DenseModel kQwen2_32b{"qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 131072, 0, true};
inline const DenseModel kGemma3_1b{"gemma3", 26,    1152, 4,     1,    256, 6912,
                                   262144,   32768, 512,  false, true, true};

/// Declares a tensor in `dtype`, or in what llama.cpp falls back to where rows are no whole blocks.
inline void declare(gguf::GgufWriter& writer, const std::string& name, gguf::DType dtype,
                    std::vector<int64_t> dims) {
  using gguf::DType;
  if (dims[0] % gguf::dtype_info(dtype).block_elems != 0)
    dtype = dtype == DType::Q6_K ? DType::Q8_0 : DType::Q5_0;
  writer.declare_tensor(name, dtype, dims);
}

inline gguf::GgufWriter dense_header(const DenseModel& model) {
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

/// DeepSeek-R1 Q4_K_M as its files of January 2025 have it: 1025 tensors, one attn_kv_b a layer.
inline gguf::GgufWriter r1_header() {
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
                                                     {"vocab_size", 129280}}) {
    writer.add(std::string("deepseek2.") + key, value);
  }
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

/// The model as it would be read, without its data.
inline gguf::GgufFile open_header(const gguf::GgufWriter& writer,
                                  const std::string& name = "model.gguf") {
  const gguf::GgufLayout layout = writer.layout();
  gguf::PartialFile file;
  file.path = name;
  file.size_bytes = layout.size_bytes;
  const auto bytes = std::as_bytes(std::span(layout.header));
  file.prefix.assign(bytes.begin(), bytes.end());
  return gguf::GgufFile::open_headers({file});
}

}  // namespace dsctl::tests
