#include <string>
#include <vector>

#include "engine/error.h"
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
  explicit QuantModel(gguf::DType dtype) : path(dir.path() / "model.gguf") {
    tests::write_model(path, {.dim = 256, .ffn_dim = 512, .head_dim = 64, .dtype = dtype});
  }
};

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
      check(QuantModel(dtype).path, golden_models()[0].tokens, kernels);
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
      check(QuantModel(dtype).path, golden_models()[0].tokens, kernels);
  }
}

TEST_CASE("Fast kernels agree with the reference on a quantised model within the bound of ops.h") {
  for (const auto dtype : kQuantTypes) {
    const QuantModel model(dtype);
    const auto file = gguf::GgufFile::open(model.path);
    ModelWorker fast(file, options_with(CpuKernels::kFast));
    ModelWorker reference(file, options_with(CpuKernels::kReference));
    const auto& tokens = golden_models()[0].tokens;
    INFO(gguf::dtype_info(dtype).name << ", " << fast.limits().device);
    const double error =
        tests::nmse(run_in_chunks(fast, tokens, 64), run_in_chunks(reference, tokens, 64));
    // Two layers of four products in a row, and the head.
    CHECK(error <= 9 * 5e-4);
  }
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
