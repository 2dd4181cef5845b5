// Whole models on CudaOps: the logits of transformers, the CPU reference, the same bits in every
// company and with graphs.
#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "engine/tokenizer/tokenizer.h"
#include "gguf/gguf_file.h"
#include "tests/cuda/device.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using tests::add_tokens;
using tests::Blocks;
using tests::golden_models;
using tests::GoldenModel;

const Blocks kBlocks{7, 3, 12, 1, 9};
const Blocks kOtherBlocks{20, 31, 22, 29, 24};

constexpr gguf::DType kQuantTypes[] = {gguf::DType::Q4_0, gguf::DType::Q4_1, gguf::DType::Q5_0,
                                       gguf::DType::Q8_0, gguf::DType::Q4_K, gguf::DType::Q5_K,
                                       gguf::DType::Q6_K, gguf::DType::F16,  gguf::DType::BF16};

/// Of kQuantTypes all on a GPU, one of each kind of tile on the host, which is slower.
std::vector<gguf::DType> quant_types() {
  if (tests::is_emulated()) return {gguf::DType::Q4_0, gguf::DType::Q4_K, gguf::DType::Q6_K};
  return {std::begin(kQuantTypes), std::end(kQuantTypes)};
}

struct CudaModel {
  CudaOps* ops = nullptr;  // the worker's
  std::unique_ptr<ModelWorker> worker;

  explicit CudaModel(const gguf::GgufFile& file, bool use_graphs = true,
                     gguf::DType kv_dtype = gguf::DType::F32) {
    EngineOptions options = tests::small_options();
    if (tests::is_emulated()) options.max_num_batched_tokens = 64;
    OpsBackend backend;
    backend.kv_dtype = kv_dtype;
    backend.make_ops = [&](Communicator& /*comm*/, const OpsLimits& limits) {
      CudaOpsOptions own = tests::cuda_options();
      own.use_graphs = use_graphs;
      own.max_tokens = limits.max_tokens;
      own.max_rows = limits.max_rows;
      own.max_context = limits.max_context;
      auto made = std::make_unique<CudaOps>(own);
      ops = made.get();
      return made;
    };
    worker = std::make_unique<ModelWorker>(file, options, backend);
  }

  std::vector<float> run(const std::vector<int32_t>& tokens, int chunk) {
    return tests::run_in_chunks(*worker, tokens, chunk, kBlocks);
  }
};

/// A random model with rows of whole blocks of 256.
struct QuantModel {
  tests::TempDir dir;
  std::filesystem::path path;
  explicit QuantModel(gguf::DType dtype) : path(dir.path() / "model.gguf") {
    tests::write_model(path, {.dim = 256, .ffn_dim = 512, .head_dim = 64, .dtype = dtype});
  }
};

/// Mean over the rows of KL(softmax(expected) || softmax(actual)), in nats.
double mean_divergence(const std::vector<float>& actual, const std::vector<float>& expected,
                       int vocab_size) {
  const auto n = static_cast<size_t>(vocab_size);
  const auto log_sum = [&](const float* row) {
    double sum = 0.0;
    for (size_t i = 0; i < n; ++i)
      sum += std::exp(static_cast<double>(row[i]));
    return std::log(sum);
  };
  double total = 0.0;
  for (size_t row = 0; row < expected.size(); row += n) {
    const double actual_sum = log_sum(&actual[row]);
    const double expected_sum = log_sum(&expected[row]);
    for (size_t i = row; i < row + n; ++i) {
      const double log_p = expected[i] - expected_sum;
      total += std::exp(log_p) * (log_p - (actual[i] - actual_sum));
    }
  }
  return total / static_cast<double>(expected.size() / n);
}

std::vector<int32_t> some_tokens(size_t n) {
  const auto& all = golden_models()[0].tokens;
  return {all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(n, all.size()))};
}

}  // namespace

TEST_CASE("Models of every architecture compute the logits of transformers on CUDA", "[gpu]") {
  for (const GoldenModel& golden : golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    INFO(golden.name);
    std::unique_ptr<CudaModel> model;
    try {
      model = std::make_unique<CudaModel>(file);
    } catch (const Error& error) {
      // The only reason to refuse one.
      CHECK_THAT(error.what(), Catch::Contains("computed on the CPU only"));
      continue;
    }
    const auto logits = model->run(golden.tokens, 64);
    REQUIRE(logits.size() == golden.logits.size());
    CHECK(tests::max_abs_error(logits, golden.logits) <= 1e-4);
  }
}

TEST_CASE("On CUDA a prompt in chunks, or token by token, gives the same bits", "[gpu]") {
  const auto check = [](const std::filesystem::path& path, const std::vector<int32_t>& tokens) {
    const auto file = gguf::GgufFile::open(path);
    CudaModel model(file);
    const auto whole = model.run(tokens, 64);
    INFO(path);
    CHECK(model.run(tokens, 1) == whole);
    CHECK(model.ops->n_replays() > 0);
    CHECK(model.run(tokens, 7) == whole);
    CudaModel without_graphs(file, false);
    CHECK(without_graphs.run(tokens, 1) == whole);
    CHECK(without_graphs.ops->n_replays() == 0);
  };
  for (const char* name : {"llama_tied", "gemma3"}) {
    const GoldenModel& golden = tests::golden_model(name);
    check(golden.path, golden.tokens);
  }
  for (const auto dtype : quant_types())
    check(QuantModel(dtype).path, some_tokens(9));
}

TEST_CASE("On CUDA sequences in decode have the same bits alone and among others", "[gpu]") {
  for (const auto dtype : quant_types()) {
    const QuantModel quant(dtype);
    const auto file = gguf::GgufFile::open(quant.path);
    CudaModel model(file, true, gguf::DType::F16);
    const auto tokens = some_tokens(10);
    const auto alone = model.run(tokens, 10);
    const std::vector<int32_t> others(tokens.rbegin(), tokens.rend());
    const int vocab = model.worker->limits().vocab_size;
    for (const int n_others : {1, 31}) {
      // Fills the caches of all, then decodes the last tokens together.
      for (int other = 0; other < n_others; ++other) {
        Batch fill;
        add_tokens(fill, others, 0, 6, {2 * other % 50 + 13}, 8);
        model.worker->run_logits(fill);
      }
      model.run({tokens.begin(), tokens.begin() + 8}, 8);
      for (int i = 8; i < 10; ++i) {
        Batch batch;
        for (int other = 0; other < n_others; ++other)
          add_tokens(batch, others, 6, 7, {2 * other % 50 + 13}, 8);
        add_tokens(batch, tokens, i, i + 1, kBlocks, 8);
        const auto logits = model.worker->run_logits(batch);
        const std::vector<float> own(logits.end() - vocab, logits.end());
        const std::vector<float> want(alone.begin() + i * vocab, alone.begin() + (i + 1) * vocab);
        INFO(gguf::dtype_info(dtype).name << " among " << n_others);
        CHECK(own == want);
      }
    }
  }
}

TEST_CASE("CUDA agrees with the CPU reference on a quantised model", "[gpu]") {
  for (const auto dtype : kQuantTypes) {
    const QuantModel quant(dtype);
    const auto file = gguf::GgufFile::open(quant.path);
    CudaModel model(file);
    ModelWorker reference(file, tests::small_options());
    const auto tokens = some_tokens(20);
    const double error =
        tests::nmse(model.run(tokens, 64), tests::run_in_chunks(reference, tokens, 64, kBlocks));
    INFO(gguf::dtype_info(dtype).name);
    // Two layers of four products in a row, and the head.
    const bool plain = dtype == gguf::DType::F16 || dtype == gguf::DType::BF16;
    CHECK(error <= (plain ? 1e-9 : 1e-6));
  }
}

TEST_CASE("Only the last token of a prompt may want logits", "[gpu]") {
  const GoldenModel& golden = tests::golden_model("gemma3");
  const auto file = gguf::GgufFile::open(golden.path);
  CudaModel model(file);
  const auto all = model.run(golden.tokens, 64);
  Batch batch;
  add_tokens(batch, golden.tokens, 0, static_cast<int>(golden.tokens.size()), kOtherBlocks, 8);
  batch.sample_rows.erase(batch.sample_rows.begin(), batch.sample_rows.end() - 1);
  const auto last = model.worker->run_logits(batch);
  CHECK(last == std::vector<float>(all.end() - golden.vocab_size, all.end()));
  // None at all: the cache is filled and nothing comes back.
  batch.sample_rows.clear();
  CHECK(model.worker->run_logits(batch).empty());
}

TEST_CASE("A real model's distributions on CUDA are the CPU reference's", "[gpu][slow]") {
  const char* path = std::getenv("DSCTL_TEST_MODEL");
  if (path == nullptr) {
    WARN("DSCTL_TEST_MODEL names no model");
    return;
  }
  const auto file = gguf::GgufFile::open(path);
  // Text as people write it: of nonsense a model's distributions hang on every rounding.
  std::vector<int32_t> tokens = Tokenizer::from_gguf(file)->encode(
      "The tide comes in twice a day because the moon pulls on the sea. When the sun and the moon "
      "stand in one line, their pulls add up and the water rises higher than usual; fishermen call "
      "that a spring tide.",
      AddSpecial::kYes, SpecialTokens::kAsText);
  tokens.resize(std::min<size_t>(tokens.size(), 40));
  ModelWorker reference(file, tests::small_options());
  const auto want = tests::run_in_chunks(reference, tokens, 40, kBlocks);
  const int vocab = reference.limits().vocab_size;
  EngineOptions fast_options = tests::small_options();
  fast_options.cpu_kernels = CpuKernels::kFast;
  ModelWorker fast(file, fast_options);
  WARN("mean divergence of the CPU's fast kernels "
       << mean_divergence(tests::run_in_chunks(fast, tokens, 40, kBlocks), want, vocab));
  for (const gguf::DType kv_dtype : {gguf::DType::F32, gguf::DType::F16}) {
    CudaModel model(file, true, kv_dtype);
    const double divergence = mean_divergence(model.run(tokens, 40), want, vocab);
    INFO(path << ", cache " << gguf::dtype_info(kv_dtype).name);
    WARN("mean divergence " << divergence);
    CHECK(divergence <= 1e-4);
  }
}

#ifdef DSCTL_CUDA_EMULATION
TEST_CASE("A CUDA error names operation and layer and is for good", "[gpu]") {
  const GoldenModel& golden = tests::golden_model("llama_tied");
  const auto file = gguf::GgufFile::open(golden.path);
  CudaModel model(file);
  CHECK(model.worker->alive());
  emulation::fail_after(9);
  CHECK_THROWS_WITH(model.run(golden.tokens, 64),
                    Catch::Contains("illegal memory access") && Catch::Contains(" of layer 0"));
  emulation::fail_after(-1);
  CHECK_FALSE(model.worker->alive());
  CHECK_THROWS_WITH(model.run(golden.tokens, 64), Catch::Contains("illegal memory access"));
}
#endif

}  // namespace dsctl::engine
