#include "tests/support/engine_models.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <random>
#include <stdexcept>

#include "gguf/quants/encode.h"
#include "tests/support/paths.h"

namespace dsctl::tests {
namespace {

template <typename T>
std::vector<T> read_values(std::ifstream& file, size_t n) {
  std::vector<T> values(n);
  file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(n * sizeof(T)));
  if (!file) throw std::runtime_error("golden model: file too short");
  return values;
}

GoldenModel read_golden(const std::string& name) {
  const auto folder = source_dir() / "tests/golden/models";
  GoldenModel model;
  model.name = name;
  model.path = folder / (name + ".gguf");
  std::ifstream file(folder / (name + ".bin"), std::ios::binary);
  const auto header = read_values<int32_t>(file, 2);
  const auto n_tokens = static_cast<size_t>(header[0]);
  model.vocab_size = header[1];
  model.tokens = read_values<int32_t>(file, n_tokens);
  model.logits = read_values<float>(file, n_tokens * static_cast<size_t>(model.vocab_size));
  std::ifstream pooled(folder / (name + ".pooled"), std::ios::binary);
  if (!pooled) return model;
  const auto dim = static_cast<size_t>(read_values<int32_t>(pooled, 1)[0]);
  model.mean_state = read_values<float>(pooled, dim);
  model.last_state = read_values<float>(pooled, dim);
  return model;
}

}  // namespace

const std::vector<GoldenModel>& golden_models() {
  static const std::vector<GoldenModel> models = [] {
    std::vector<GoldenModel> all;
    for (const char* name : {"llama_tied",
                             "llama_untied_bias",
                             "llama_llama3_rope",
                             "llama_linear_rope",
                             "qwen2",
                             "qwen2_yarn",
                             "qwen3",
                             "gemma3",
                             "gemma3_linear_rope",
                             "gemma2",
                             "phi3",
                             "phi3_longrope_long",
                             "phi3_longrope_short",
                             "qwen3moe",
                             "deepseek_v3",
                             "deepseek_v3_old",
                             "deepseek_v3_no_q_lora",
                             "deepseek_v3_no_groups",
                             "deepseek_v2",
                             "deepseek_v2_lite"})
      all.push_back(read_golden(name));
    return all;
  }();
  return models;
}

GoldenModel golden_adapter(const std::string& name) {
  return read_golden(name);
}

const GoldenModel& golden_model(const std::string& name) {
  for (const GoldenModel& model : golden_models()) {
    if (model.name == name) return model;
  }
  throw std::runtime_error("no golden model " + name);
}

namespace {

/// Adds keys and random tensors of one RandomModel.
class RandomWriter {
 public:
  explicit RandomWriter(const RandomModel& model)
      : model_(model), arch_(model.architecture()), random_(model.seed) {}

  void write(const std::filesystem::path& path) {
    writer_.add("general.architecture", std::string_view(arch_));
    add_keys();
    add_matrix("token_embd.weight", model_.dim, model_.vocab_size);
    add_norm("output_norm.weight", model_.dim);
    for (int i = 0; i < model_.n_layers; ++i) {
      const std::string block = "blk." + std::to_string(i) + ".";
      add_norm(block + "attn_norm.weight", model_.dim);
      add_norm(block + "ffn_norm.weight", model_.dim);
      if (model_.latent_dim > 0) {
        add_latent_attention(block);
      } else {
        add_attention(block);
      }
      const bool is_dense = model_.n_experts == 0 || (model_.latent_dim > 0 && i == 0);
      if (is_dense) {
        add_ffn(block, "", model_.ffn_dim);
      } else {
        add_experts(block);
      }
    }
    writer_.write(path);
  }

 private:
  template <typename T>
  void add(const std::string& key, T value) {
    writer_.add(arch_ + "." + key, value);
  }
  void add_int(const std::string& key, int value) { add(key, static_cast<uint32_t>(value)); }

  void add_keys() {
    add_int("block_count", model_.n_layers);
    add_int("context_length", 128);
    add_int("embedding_length", model_.dim);
    add_int("feed_forward_length", model_.ffn_dim);
    add_int("attention.head_count", model_.n_heads);
    add_int("attention.head_count_kv", model_.n_kv_heads);
    add_int("attention.key_length", model_.head_dim);
    add_int("attention.value_length", model_.head_dim);
    add("attention.layer_norm_rms_epsilon", 1e-6f);
    if (model_.latent_dim > 0) {
      add_int("attention.kv_lora_rank", model_.latent_dim);
      add_int("rope.dimension_count", model_.rope_dim);
      add_int("leading_dense_block_count", model_.n_experts > 0 ? 1 : model_.n_layers);
    }
    if (model_.n_experts == 0) return;
    add_int("expert_count", model_.n_experts);
    add_int("expert_used_count", model_.n_used_experts);
    add_int("expert_feed_forward_length", model_.expert_dim);
    if (model_.latent_dim > 0) {
      add_int("expert_gating_func", 2);
      add_int("expert_shared_count", 2);
    }
  }

  void add_attention(const std::string& block) {
    const int64_t q_cols = int64_t{model_.n_heads} * model_.head_dim;
    const int64_t kv_cols = int64_t{model_.n_kv_heads} * model_.head_dim;
    add_matrix(block + "attn_q.weight", model_.dim, q_cols);
    add_matrix(block + "attn_k.weight", model_.dim, kv_cols);
    add_matrix(block + "attn_v.weight", model_.dim, kv_cols);
    add_matrix(block + "attn_output.weight", q_cols, model_.dim);
    if (model_.n_experts == 0) return;
    add_norm(block + "attn_q_norm.weight", model_.head_dim);
    add_norm(block + "attn_k_norm.weight", model_.head_dim);
  }

  void add_latent_attention(const std::string& block) {
    const int64_t cols = int64_t{model_.n_heads} * model_.head_dim;
    const int64_t up_rows = int64_t{model_.n_heads} * (2 * model_.head_dim - model_.rope_dim);
    add_matrix(block + "attn_q.weight", model_.dim, cols);
    add_matrix(block + "attn_kv_a_mqa.weight", model_.dim, model_.latent_dim + model_.rope_dim);
    add_norm(block + "attn_kv_a_norm.weight", model_.latent_dim);
    add_matrix(block + "attn_kv_b.weight", model_.latent_dim, up_rows);
    add_matrix(block + "attn_output.weight", cols, model_.dim);
  }

  void add_ffn(const std::string& block, const std::string& suffix, int ffn_dim) {
    add_matrix(block + "ffn_gate" + suffix + ".weight", model_.dim, ffn_dim);
    add_matrix(block + "ffn_up" + suffix + ".weight", model_.dim, ffn_dim);
    add_matrix(block + "ffn_down" + suffix + ".weight", ffn_dim, model_.dim);
  }

  void add_experts(const std::string& block) {
    const int64_t n = model_.n_experts;
    add_matrix(block + "ffn_gate_inp.weight", model_.dim, n, 1, gguf::DType::F32);
    add_matrix(block + "ffn_gate_exps.weight", model_.dim, model_.expert_dim, n);
    add_matrix(block + "ffn_up_exps.weight", model_.dim, model_.expert_dim, n);
    add_matrix(block + "ffn_down_exps.weight", model_.expert_dim, model_.dim, n);
    if (model_.latent_dim == 0) return;
    add_ffn(block, "_shexp", 2 * model_.expert_dim);
    std::vector<float> bias(static_cast<size_t>(n));
    std::normal_distribution<float> normal(0.0f, 0.2f);
    for (float& value : bias)
      value = normal(random_);
    writer_.add_tensor(block + "exp_probs_b.bias", {n}, bias);
  }

  void add_matrix(const std::string& name, int64_t n_cols, int64_t n_rows) {
    add_matrix(name, n_cols, n_rows, 1, model_.dtype);
  }
  void add_matrix(const std::string& name, int64_t n_cols, int64_t n_rows, int64_t n_matrices) {
    add_matrix(name, n_cols, n_rows, n_matrices, model_.dtype);
  }
  void add_matrix(const std::string& name, int64_t n_cols, int64_t n_rows, int64_t n_matrices,
                  gguf::DType dtype) {
    std::normal_distribution<float> normal(0.0f, 1.5f / std::sqrt(static_cast<float>(n_cols)));
    std::vector<float> values(static_cast<size_t>(n_cols * n_rows * n_matrices));
    for (float& value : values)
      value = normal(random_);
    const auto n_elems = static_cast<int64_t>(values.size());
    std::vector<std::byte> bytes(static_cast<size_t>(gguf::row_size_bytes(dtype, n_elems)));
    gguf::quantize_row(dtype, values.data(), bytes.data(), n_elems);
    if (n_matrices == 1) {
      writer_.add_tensor(name, dtype, {n_cols, n_rows}, std::move(bytes));
    } else {
      writer_.add_tensor(name, dtype, {n_cols, n_rows, n_matrices}, std::move(bytes));
    }
  }
  void add_norm(const std::string& name, int n) {
    writer_.add_tensor(name, {n}, std::vector<float>(static_cast<size_t>(n), 1.0f));
  }

  const RandomModel& model_;
  const std::string arch_;
  std::mt19937_64 random_;
  gguf::GgufWriter writer_;
};

}  // namespace

void write_model(const std::filesystem::path& path, const RandomModel& model) {
  RandomWriter(model).write(path);
}

void copy_model(const std::filesystem::path& from, const std::filesystem::path& to,
                const Changes& changes) {
  const auto file = gguf::GgufFile::open(from);
  gguf::GgufWriter writer;
  for (const gguf::KeyValue& pair : file.metadata()) {
    if (pair.key != changes.dropped_key) writer.add_value(pair.key, pair.value);
  }
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    if (tensor.name == changes.dropped_tensor) continue;
    std::vector<int64_t> dims(tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims);
    std::vector<std::byte> bytes(tensor.data, tensor.data + tensor.size_bytes);
    if (tensor.name == changes.reshaped_tensor) {
      dims = changes.dims;
      int64_t n_elems = 1;
      for (const int64_t dim : dims)
        n_elems *= dim;
      bytes.assign(static_cast<size_t>(gguf::row_size_bytes(tensor.dtype, n_elems)), std::byte{0});
    }
    writer.add_tensor(tensor.name, tensor.dtype, dims, std::move(bytes));
  }
  if (changes.more) changes.more(writer);
  writer.write(to);
}

engine::EngineOptions small_options() {
  engine::EngineOptions options;
  options.device = engine::Device::kCpu;
  options.cpu_kernels = engine::CpuKernels::kReference;
  options.n_threads = 2;
  options.max_model_len = 64;
  options.max_num_seqs = 128;  // every row of a batch may want logits
  options.max_num_batched_tokens = 128;
  options.block_size = 8;
  options.n_kv_blocks = 64;
  options.kv_cache_type = engine::KvCacheType::kF32;  // what rounds nothing can be compared
  return options;
}

void add_tokens(engine::Batch& batch, const std::vector<int32_t>& tokens, int begin, int end,
                const Blocks& blocks, int block_size) {
  constexpr int kMaxBlocks = 8;
  batch.max_blocks_per_seq = kMaxBlocks;
  if (batch.query_starts.empty()) batch.query_starts.push_back(0);
  for (int i = begin; i < end; ++i) {
    batch.sample_rows.emplace_back();
    batch.sample_rows.back().token_idx = batch.n_tokens();
    batch.token_ids.push_back(tokens[static_cast<size_t>(i)]);
    batch.positions.push_back(i);
    const int32_t block = blocks[static_cast<size_t>(i / block_size)];
    batch.slot_mapping.push_back(block * block_size + i % block_size);
  }
  batch.query_starts.push_back(batch.n_tokens());
  batch.context_lens.push_back(end);
  for (size_t i = 0; i < kMaxBlocks; ++i)
    batch.block_tables.push_back(i < blocks.size() ? blocks[i] : -1);
}

std::vector<float> run_in_chunks(engine::ModelWorker& worker, const std::vector<int32_t>& tokens,
                                 int chunk, const Blocks& blocks) {
  const int n_tokens = static_cast<int>(tokens.size());
  std::vector<float> all;
  for (int begin = 0; begin < n_tokens; begin += chunk) {
    engine::Batch batch;
    add_tokens(batch, tokens, begin, std::min(begin + chunk, n_tokens), blocks,
               worker.limits().block_size);
    const auto logits = worker.run_logits(batch);
    all.insert(all.end(), logits.begin(), logits.end());
  }
  return all;
}

std::vector<int32_t> argmax_rows(const std::vector<float>& logits, int vocab_size) {
  std::vector<int32_t> best;
  for (size_t row = 0; row < logits.size(); row += static_cast<size_t>(vocab_size)) {
    const auto begin = logits.begin() + static_cast<std::ptrdiff_t>(row);
    best.push_back(static_cast<int32_t>(std::max_element(begin, begin + vocab_size) - begin));
  }
  return best;
}

double nmse(const std::vector<float>& a, const std::vector<float>& b) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < b.size(); ++i) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    norm += double{b[i]} * b[i];
  }
  return error / norm;
}

double max_abs_error(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0.0;
  for (size_t i = 0; i < b.size(); ++i) {
    const double error = std::fabs(double{a[i]} - b[i]);
    if (!(error <= worst)) worst = error;  // a NaN is the worst of all
  }
  return worst;
}

}  // namespace dsctl::tests
