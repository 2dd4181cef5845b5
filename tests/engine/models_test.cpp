#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "engine/cpu/kernels.h"
#include "engine/error.h"
#include "engine/kv_cache.h"
#include "engine/model_worker.h"
#include "engine/models/models.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using tests::add_tokens;
using tests::Blocks;
using tests::golden_models;
using tests::GoldenModel;

// Neither in order nor adjacent, so that a wrong block is noticed.
const Blocks kBlocks{7, 3, 12, 1, 9};
const Blocks kOtherBlocks{20, 31, 22, 29, 24};

constexpr gguf::DType kQuantTypes[] = {gguf::DType::Q4_0, gguf::DType::Q4_1, gguf::DType::Q5_0,
                                       gguf::DType::Q8_0, gguf::DType::Q4_K, gguf::DType::Q5_K,
                                       gguf::DType::Q6_K, gguf::DType::F16,  gguf::DType::BF16};

std::vector<float> run_in_chunks(ModelWorker& worker, const std::vector<int32_t>& tokens,
                                 int chunk) {
  return tests::run_in_chunks(worker, tokens, chunk, kBlocks);
}

EngineOptions options_with(CpuKernels kernels) {
  EngineOptions options = tests::small_options();
  options.cpu_kernels = kernels;
  return options;
}

/// Types with kernels of their own and one that goes through a row dequantise, in a model whose
/// rows are whole blocks of 256.
struct QuantModel {
  tests::TempDir dir;
  std::filesystem::path path;
  explicit QuantModel(const tests::RandomModel& model) : path(dir.path() / "model.gguf") {
    tests::write_model(path, model);
  }
};

tests::RandomModel dense_model(gguf::DType dtype) {
  return {.dim = 256, .ffn_dim = 512, .head_dim = 64, .dtype = dtype};
}

/// Mixtures of experts, so few that some get many tokens and some none: qwen3moe and deepseek2 in
/// blocks of 32, deepseek2 in blocks of 256.
const std::vector<std::unique_ptr<QuantModel>>& expert_models() {
  static const auto models = [] {
    tests::RandomModel small{.head_dim = 32, .dtype = gguf::DType::Q4_0, .n_experts = 7};
    small.expert_dim = 64;
    tests::RandomModel large = dense_model(gguf::DType::Q4_K);
    large.n_experts = 4;
    large.expert_dim = 256;
    large.latent_dim = 256;
    std::vector<std::unique_ptr<QuantModel>> all;
    all.push_back(std::make_unique<QuantModel>(small));
    small.latent_dim = 64;
    all.push_back(std::make_unique<QuantModel>(small));
    all.push_back(std::make_unique<QuantModel>(large));
    return all;
  }();
  return models;
}

}  // namespace

TEST_CASE("Models of every architecture compute the logits of transformers") {
  for (const CpuKernels kernels : {CpuKernels::kReference, CpuKernels::kFast}) {
    for (const GoldenModel& golden : golden_models()) {
      const auto file = gguf::GgufFile::open(golden.path);
      ModelWorker worker(file, options_with(kernels));
      const auto logits = run_in_chunks(worker, golden.tokens, 64);
      INFO(golden.name << ", " << worker.limits().device);
      REQUIRE(logits.size() == golden.logits.size());
      CHECK(tests::max_abs_error(logits, golden.logits) <= 1e-4);
    }
  }
}

TEST_CASE("A prompt in chunks, or token by token, gives the same bits as in one piece") {
  const auto check = [](const std::filesystem::path& path, const std::vector<int32_t>& tokens,
                        CpuKernels kernels) {
    const auto file = gguf::GgufFile::open(path);
    ModelWorker worker(file, options_with(kernels));
    const auto whole = run_in_chunks(worker, tokens, 64);
    INFO(path << ", " << worker.limits().device);
    CHECK(run_in_chunks(worker, tokens, 1) == whole);
    CHECK(run_in_chunks(worker, tokens, 7) == whole);
    CHECK(run_in_chunks(worker, tokens, 32) == whole);
  };
  for (const CpuKernels kernels : {CpuKernels::kReference, CpuKernels::kFast}) {
    for (const GoldenModel& golden : golden_models())
      check(golden.path, golden.tokens, kernels);
    for (const auto dtype : kQuantTypes)
      check(QuantModel(dense_model(dtype)).path, golden_models()[0].tokens, kernels);
    for (const auto& model : expert_models())
      check(model->path, golden_models()[0].tokens, kernels);
  }
}

TEST_CASE("A sequence has the same bits alone and in a batch with others") {
  const auto check = [](const std::filesystem::path& path, const std::vector<int32_t>& tokens,
                        CpuKernels kernels) {
    const auto file = gguf::GgufFile::open(path);
    ModelWorker worker(file, options_with(kernels));
    const auto alone = run_in_chunks(worker, tokens, 64);
    const std::vector<int32_t> others(tokens.rbegin(), tokens.rend());

    Batch batch;
    add_tokens(batch, others, 0, 29, kOtherBlocks, 8);
    add_tokens(batch, tokens, 0, static_cast<int>(tokens.size()), kBlocks, 8);
    add_tokens(batch, others, 0, 3, Blocks{40}, 8);
    const auto together = worker.run_logits(batch);
    const auto first = static_cast<std::ptrdiff_t>(29) * worker.limits().vocab_size;
    const std::vector<float> own(
        together.begin() + first,
        together.begin() + first + static_cast<std::ptrdiff_t>(alone.size()));
    INFO(path << ", " << worker.limits().device);
    CHECK(own == alone);
  };
  for (const CpuKernels kernels : {CpuKernels::kReference, CpuKernels::kFast}) {
    for (const GoldenModel& golden : golden_models())
      check(golden.path, golden.tokens, kernels);
    for (const auto dtype : kQuantTypes)
      check(QuantModel(dense_model(dtype)).path, golden_models()[0].tokens, kernels);
    for (const auto& model : expert_models())
      check(model->path, golden_models()[0].tokens, kernels);
  }
}

TEST_CASE("Fast kernels agree with the reference on a quantised model within the bound of ops.h") {
  for (const auto dtype : kQuantTypes) {
    const QuantModel model(dense_model(dtype));
    const auto file = gguf::GgufFile::open(model.path);
    ModelWorker fast(file, options_with(CpuKernels::kFast));
    ModelWorker reference(file, options_with(CpuKernels::kReference));
    const auto& tokens = golden_models()[0].tokens;
    INFO(gguf::dtype_info(dtype).name << ", " << fast.limits().device);
    const double error =
        tests::nmse(run_in_chunks(fast, tokens, 64), run_in_chunks(reference, tokens, 64));
    // Two layers of four products in a row, and the head.
    CHECK(error <= 9 * 1e-8);
  }
}

TEST_CASE("A cache of f16 halves its memory and keeps logits near those of f32") {
  const QuantModel model(dense_model(gguf::DType::Q4_1));
  const auto file = gguf::GgufFile::open(model.path);
  const auto& tokens = golden_models()[0].tokens;
  for (const CpuKernels kernels : {CpuKernels::kFast, CpuKernels::kReference}) {
    EngineOptions options = options_with(kernels);
    options.kv_cache_type = KvCacheType::kF16;
    ModelWorker half(file, options);
    options.kv_cache_type = KvCacheType::kF32;
    ModelWorker full(file, options);
    CHECK(2 * half.limits().kv_bytes == full.limits().kv_bytes);
    const auto logits = run_in_chunks(half, tokens, 64);
    INFO(half.limits().device);
    CHECK(tests::nmse(logits, run_in_chunks(full, tokens, 64)) <= 1e-6);
    CHECK(run_in_chunks(half, tokens, 3) == logits);
  }
}

TEST_CASE("A cache is f16 by default, f32 for the reference and for latents") {
  const auto bytes = [](const QuantModel& model, CpuKernels kernels, KvCacheType type) {
    const auto file = gguf::GgufFile::open(model.path);
    EngineOptions options = options_with(kernels);
    options.kv_cache_type = type;
    return ModelWorker(file, options).limits().kv_bytes;
  };
  const bool has_fast = &select_kernels(CpuKernels::kFast) != &reference_kernels();
  const QuantModel dense(dense_model(gguf::DType::Q8_0));
  const int64_t f32 = bytes(dense, CpuKernels::kReference, KvCacheType::kF32);
  CHECK(bytes(dense, CpuKernels::kReference, KvCacheType::kAuto) == f32);
  CHECK(bytes(dense, CpuKernels::kFast, KvCacheType::kAuto) == (has_fast ? f32 / 2 : f32));
  tests::RandomModel latents = dense_model(gguf::DType::Q8_0);
  latents.latent_dim = 256;
  const QuantModel latent(latents);
  CHECK(bytes(latent, CpuKernels::kFast, KvCacheType::kAuto) ==
        bytes(latent, CpuKernels::kReference, KvCacheType::kF32));
  if (has_fast) CHECK_THROWS_AS(bytes(latent, CpuKernels::kFast, KvCacheType::kF16), Error);
}

TEST_CASE("Names of cache types are checked") {
  CHECK(parse_kv_cache_type("auto") == KvCacheType::kAuto);
  CHECK(parse_kv_cache_type("float16") == KvCacheType::kF16);
  CHECK(parse_kv_cache_type("f32") == KvCacheType::kF32);
  CHECK_THROWS_AS(parse_kv_cache_type("f8"), Error);
}

TEST_CASE("Fast latent attention agrees with the reference on quantised models") {
  for (const auto dtype : {gguf::DType::F32, gguf::DType::Q8_0, gguf::DType::Q4_K}) {
    tests::RandomModel model = dense_model(dtype);
    model.latent_dim = 256;
    const QuantModel quant(model);
    const auto file = gguf::GgufFile::open(quant.path);
    ModelWorker fast(file, options_with(CpuKernels::kFast));
    ModelWorker reference(file, options_with(CpuKernels::kReference));
    const auto& tokens = golden_models()[0].tokens;
    INFO(gguf::dtype_info(dtype).name << ", " << fast.limits().device);
    const double error =
        tests::nmse(run_in_chunks(fast, tokens, 64), run_in_chunks(reference, tokens, 64));
    // Two layers of six products in a row, and the head.
    CHECK(error <= 13 * (dtype == gguf::DType::F32 ? 1e-10 : 1e-8));
  }
}

TEST_CASE("Both layouts of deepseek2's up projections give the same logits") {
  const GoldenModel& golden = tests::golden_model("deepseek_v3");
  const auto new_file = gguf::GgufFile::open(golden.path);
  const auto old_file = gguf::GgufFile::open(tests::golden_model("deepseek_v3_old").path);
  REQUIRE(new_file.find_tensor("blk.0.attn_k_b.weight") != nullptr);
  REQUIRE(old_file.find_tensor("blk.0.attn_kv_b.weight") != nullptr);
  ModelWorker new_worker(new_file, tests::small_options());
  ModelWorker old_worker(old_file, tests::small_options());
  const auto logits = run_in_chunks(new_worker, golden.tokens, 64);
  CHECK(tests::max_abs_error(run_in_chunks(old_worker, golden.tokens, 64), logits) <= 2e-5);
}

TEST_CASE("A step of more tokens than a tile of latent queries gives the same bits") {
  const tests::RandomModel model{.head_dim = 24, .n_experts = 5, .latent_dim = 24};
  const QuantModel quant(model);
  const auto file = gguf::GgufFile::open(quant.path);
  EngineOptions options = options_with(CpuKernels::kReference);
  options.max_model_len = 128;
  ModelWorker worker(file, options);
  std::vector<int32_t> tokens;
  for (int i = 0; i < 100; ++i)
    tokens.push_back((i * 37 + 11) % model.vocab_size);
  const Blocks blocks{7, 3, 12, 1, 9, 20, 31, 22, 29, 24, 40, 41, 42};
  Batch batch;
  batch.max_blocks_per_seq = static_cast<int>(blocks.size());
  batch.block_tables = blocks;
  batch.query_starts = {0, 100};
  batch.context_lens = {100};
  batch.token_ids = tokens;
  for (int i = 0; i < 100; ++i) {
    batch.positions.push_back(i);
    batch.slot_mapping.push_back(blocks[static_cast<size_t>(i / 8)] * 8 + i % 8);
    batch.sample_rows.push_back({.token_idx = i});
  }
  const auto whole = worker.run_logits(batch);
  // The first 64 alone fill one tile exactly.
  const auto first =
      tests::run_in_chunks(worker, {tokens.begin(), tokens.begin() + 64}, 64, blocks);
  CHECK(std::equal(first.begin(), first.end(), whole.begin()));
}

TEST_CASE("Logits are the same whether all rows are wanted or only the last") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    ModelWorker worker(file, tests::small_options());
    const auto all = run_in_chunks(worker, golden.tokens, 64);
    Batch batch;
    add_tokens(batch, golden.tokens, 0, static_cast<int>(golden.tokens.size()), kBlocks, 8);
    batch.sample_rows.erase(batch.sample_rows.begin(), batch.sample_rows.end() - 1);
    const auto last = worker.run_logits(batch);
    INFO(golden.name);
    CHECK(last == std::vector<float>(all.end() - golden.vocab_size, all.end()));
  }
}

}  // namespace dsctl::engine
