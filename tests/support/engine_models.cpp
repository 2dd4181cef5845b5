#include "tests/support/engine_models.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <stdexcept>

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
  return model;
}

}  // namespace

const std::vector<GoldenModel>& golden_models() {
  static const std::vector<GoldenModel> models = [] {
    std::vector<GoldenModel> all;
    for (const char* name :
         {"llama_tied", "llama_untied_bias", "llama_llama3_rope", "llama_linear_rope", "qwen2",
          "qwen2_yarn", "qwen3", "gemma3", "gemma3_linear_rope"})
      all.push_back(read_golden(name));
    return all;
  }();
  return models;
}

const GoldenModel& golden_model(const std::string& name) {
  for (const GoldenModel& model : golden_models()) {
    if (model.name == name) return model;
  }
  throw std::runtime_error("no golden model " + name);
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
