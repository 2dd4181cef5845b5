#include "engine/text_pass.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using Catch::Matchers::Contains;

std::vector<int32_t> some_tokens(int n) {
  std::vector<int32_t> tokens;
  for (int i = 0; i < n; ++i)
    tokens.push_back((i * 17 + 5) % 61);
  return tokens;
}

/// All logits from `first` on, one row after another; checks that rows come in order.
std::vector<float> logits_of(TextPass& pass, const std::vector<int32_t>& tokens, int first) {
  std::vector<float> all;
  int next = first;
  pass.run(tokens, first, [&](const TextPass::Logits& logits) {
    CHECK(logits.first_token == next);
    next += static_cast<int>(logits.rows.size());
    for (const auto row : logits.rows)
      all.insert(all.end(), row.begin(), row.end());
  });
  CHECK(next == static_cast<int>(tokens.size()));
  return all;
}

/// Keeps what it sees, by weight.
class Recorder final : public MatmulObserver {
 public:
  explicit Recorder(const gguf::GgufFile& file) : file_(file) {}
  void see(const std::byte* weight, const Rows& inputs) override {
    for (const gguf::TensorInfo& tensor : file_.tensors()) {
      if (weight < tensor.data || weight >= tensor.data + tensor.size_bytes) continue;
      CHECK(inputs.n_cols == tensor.dims[0]);
      auto& seen = inputs_[std::string(tensor.name)];
      for (int row = 0; row < inputs.n_rows; ++row)
        seen.insert(seen.end(), inputs.row(row), inputs.row(row) + inputs.n_cols);
    }
  }
  const std::vector<float>& inputs(const std::string& name) { return inputs_[name]; }

 private:
  const gguf::GgufFile& file_;
  std::map<std::string, std::vector<float>> inputs_;
};

TEST_CASE("TextPass gives the logits that a worker gives, however the text is cut") {
  const tests::TempDir dir;
  tests::write_model(dir.path() / "m.gguf", {});
  const auto file = gguf::GgufFile::open(dir.path() / "m.gguf");
  const auto tokens = some_tokens(45);
  TextPass whole(file, {.n_ctx = 48, .n_threads = 1, .n_batch = 48});
  TextPass pieces(file, {.n_ctx = 48, .n_threads = 2, .n_batch = 7});
  const auto all = logits_of(whole, tokens, 0);
  CHECK(all.size() == tokens.size() * static_cast<size_t>(whole.vocab_size()));
  CHECK(logits_of(pieces, tokens, 0) == all);
  const std::vector<float> half(all.begin() + 22 * whole.vocab_size(), all.end());
  CHECK(logits_of(whole, tokens, 22) == half);
  CHECK(logits_of(pieces, tokens, 22) == half);
  // A second sequence begins from nothing.
  CHECK(logits_of(pieces, tokens, 0) == all);

  EngineOptions options = tests::small_options();
  options.cpu_kernels = CpuKernels::kFast;
  options.kv_cache_type = KvCacheType::kAuto;
  options.block_size = 16;  // fast attention wants it
  ModelWorker worker(file, options);
  const auto expected = tests::run_in_chunks(worker, tokens, 16, {3, 1, 4, 0, 5, 2});
  CHECK(expected == all);
}

TEST_CASE("TextPass says when the model is made for fewer tokens") {
  const tests::TempDir dir;
  tests::write_model(dir.path() / "m.gguf", {});
  const auto file = gguf::GgufFile::open(dir.path() / "m.gguf");
  CHECK_THROWS_WITH(TextPass(file, {.n_ctx = 1 << 20}), Contains("the model was made for"));
}

TEST_CASE("an observer sees every matrix's input and changes no bit") {
  const tests::TempDir dir;
  tests::write_model(dir.path() / "m.gguf", {});
  const auto file = gguf::GgufFile::open(dir.path() / "m.gguf");
  const auto tokens = some_tokens(20);
  for (const CpuKernels kernels : {CpuKernels::kFast, CpuKernels::kReference}) {
    TextPass plain(file, {.n_ctx = 32, .n_threads = 1, .n_batch = 8, .cpu_kernels = kernels});
    Recorder recorder(file);
    TextPass observed(
        file,
        {.n_ctx = 32, .n_threads = 1, .n_batch = 8, .cpu_kernels = kernels, .observer = &recorder});
    CHECK(logits_of(plain, tokens, 0) == logits_of(observed, tokens, 0));
    for (const gguf::TensorInfo& tensor : file.tensors()) {
      if (!tensor.name.starts_with("blk.") || tensor.n_rows() == 1) continue;
      INFO(tensor.name);
      CHECK(recorder.inputs(std::string(tensor.name)).size() ==
            tokens.size() * static_cast<size_t>(tensor.dims[0]));
    }
    CHECK(recorder.inputs("blk.0.attn_q.weight") == recorder.inputs("blk.0.attn_v.weight"));
    // What goes into the first layer is the embedding, normalised: worked out here.
    const auto* table = reinterpret_cast<const float*>(file.find_tensor("token_embd.weight")->data);
    const auto* norm =
        reinterpret_cast<const float*>(file.find_tensor("blk.0.attn_norm.weight")->data);
    const auto& seen = recorder.inputs("blk.0.attn_q.weight");
    for (size_t token = 0; token < tokens.size(); ++token) {
      const float* x = table + int64_t{tokens[token]} * 64;
      double squares = 0;
      for (int i = 0; i < 64; ++i)
        squares += static_cast<double>(x[i]) * static_cast<double>(x[i]);
      const double scale =
          1 / std::sqrt(squares / 64 + file.get_float("llama.attention.layer_norm_rms_epsilon"));
      for (size_t i = 0; i < 64; ++i)
        CHECK(seen[token * 64 + i] == Approx(x[i] * scale * norm[i]).margin(1e-5));
    }
  }
}

TEST_CASE("an observer sees of each expert the tokens that chose it") {
  const tests::TempDir dir;
  tests::write_model(dir.path() / "m.gguf", {.n_experts = 5, .n_used_experts = 2});
  const auto file = gguf::GgufFile::open(dir.path() / "m.gguf");
  const auto tokens = some_tokens(20);
  Recorder recorder(file);
  TextPass pass(file, {.n_ctx = 32, .n_threads = 1, .n_batch = 8, .observer = &recorder});
  pass.run(tokens, 0, [](const TextPass::Logits&) {});
  for (const char* name : {"blk.0.ffn_gate_exps.weight", "blk.1.ffn_down_exps.weight"}) {
    INFO(name);
    const auto n_cols = static_cast<size_t>(file.find_tensor(name)->dims[0]);
    CHECK(recorder.inputs(name).size() == tokens.size() * 2 * n_cols);
  }
}

}  // namespace
}  // namespace dsctl::engine
