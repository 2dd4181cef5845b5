// The golden models of tests/golden/models and batches to run them with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/model_worker.h"
#include "gguf/dtype.h"
#include "gguf/gguf_writer.h"

namespace dsctl::tests {

/// A tiny random model and what transformers computes with it.
struct GoldenModel {
  std::string name;
  std::filesystem::path path;
  std::vector<int32_t> tokens;
  int vocab_size = 0;
  std::vector<float> logits;  // (n_tokens, vocab_size)
  // Of the last hidden states, (dim); not of adapters.
  std::vector<float> mean_state;
  std::vector<float> last_state;
};

/// Every case of make_goldens.py. Throws when one is not there.
const std::vector<GoldenModel>& golden_models();
const GoldenModel& golden_model(const std::string& name);
/// One that is not among them: an adapter, with the logits of its model under it.
GoldenModel golden_adapter(const std::string& name);

/// A random model in quantised form: of architecture llama, or with experts qwen3moe, or with a
/// latent deepseek2.
struct RandomModel {
  int n_layers = 2;
  int dim = 64;
  int ffn_dim = 96;
  int n_heads = 4;
  int n_kv_heads = 2;
  int head_dim = 16;
  int vocab_size = 61;
  gguf::DType dtype = gguf::DType::F32;  // of all matrices
  uint64_t seed = 1;
  // Experts in all layers, or in all but the first of deepseek2, which has a shared expert too.
  int n_experts = 0;
  int n_used_experts = 3;
  int expert_dim = 32;
  // deepseek2: heads of head_dim values, of which rope_dim are rotated; values of head_dim.
  int latent_dim = 0;
  int rope_dim = 16;

  std::string architecture() const {
    return latent_dim > 0 ? "deepseek2" : n_experts > 0 ? "qwen3moe" : "llama";
  }
};
void write_model(const std::filesystem::path& path, const RandomModel& model);

/// What a copy of a model file leaves out or has otherwise.
struct Changes {
  std::string dropped_key{};
  std::string dropped_tensor{};
  std::string reshaped_tensor{};  // gets the shape below, and zeros
  std::vector<int64_t> dims{};
  std::function<void(gguf::GgufWriter&)> more{};  // adds keys or tensors
};
void copy_model(const std::filesystem::path& from, const std::filesystem::path& to,
                const Changes& changes);

/// Small limits; blocks of 8 tokens, so that sequences span several.
engine::EngineOptions small_options();

/// A sequence's KV blocks.
using Blocks = std::vector<int32_t>;

/// Adds tokens [begin, end) of a sequence to a batch, with logits wanted for all of them.
void add_tokens(engine::Batch& batch, const std::vector<int32_t>& tokens, int begin, int end,
                const Blocks& blocks, int block_size);

/// The logits of all tokens of one sequence, computed in chunks of `chunk`.
std::vector<float> run_in_chunks(engine::ModelWorker& worker, const std::vector<int32_t>& tokens,
                                 int chunk, const Blocks& blocks);

/// The best token of each row.
std::vector<int32_t> argmax_rows(const std::vector<float>& logits, int vocab_size);

/// sum((a - b)^2) / sum(b^2).
double nmse(const std::vector<float>& a, const std::vector<float>& b);
double max_abs_error(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace dsctl::tests
