// Headers of well-known models, with their dims and the types that llama.cpp's Q4_K_M gives their
// tensors: what a plan, a test and a benchmark need of a model that is not here.
#pragma once

#include <string>
#include <string_view>

#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"

namespace dsctl::engine {

/// A model of one feed-forward network a layer.
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
  float rope_base = 1e6f;
};

inline const DenseModel kLlama3_8b{"llama", 32, 4096, 32, 8, 128, 14336, 128256, 8192};
inline const DenseModel kLlama3_70b{"llama", 80, 8192, 64, 8, 128, 28672, 128256, 131072};
inline const DenseModel kQwen2_1b{"qwen2", 28,     1536,   12, 2,    128,
                                  8960,    151936, 131072, 0,  true, true};
inline const DenseModel kQwen2_7b{"qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 131072, 0, true};
inline const DenseModel kQwen2_14b{"qwen2", 48, 5120, 40, 8, 128, 13824, 152064, 131072, 0, true};
inline const DenseModel kQwen2_32b{"qwen2", 64, 5120, 40, 8, 128, 27648, 152064, 131072, 0, true};
inline const DenseModel kQwen2_72b{"qwen2", 80, 8192, 64, 8, 128, 29568, 152064, 131072, 0, true};
inline const DenseModel kGemma3_1b{"gemma3", 26,    1152, 4,     1,    256, 6912,
                                   262144,   32768, 512,  false, true, true};

/// The header of a Q4_K_M of `model`: keys and declared tensors.
gguf::GgufWriter dense_header(const DenseModel& model);

/// DeepSeek-R1 Q4_K_M as its files of January 2025 have it: 1025 tensors, one attn_kv_b a layer.
gguf::GgufWriter r1_header();

/// "deepseek-r1", "llama3-8b", ... with commas between.
std::string model_shape_names();
bool is_model_shape(std::string_view name);

/// The header of the shape called `name`; the tensors' data reads as zeros. Throws Error listing
/// the names.
gguf::GgufFile open_model_shape(std::string_view name);

/// The model of `writer` as it would be read, without its data.
gguf::GgufFile open_header(const gguf::GgufWriter& writer, const std::string& name = "model.gguf");

}  // namespace dsctl::engine
