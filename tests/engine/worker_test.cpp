#include "engine/worker.h"

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "engine/error.h"
#include "engine/model_worker.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using tests::golden_model;

/// One token of a generation with the bits of its log-probability.
struct Generated {
  int32_t token = 0;
  float logprob = 0.0f;
  bool operator==(const Generated&) const = default;
};

/// Collects the events of several requests until all have ended.
class Collector {
 public:
  EventSink sink() {
    const std::lock_guard lock(mutex_);
    ++n_open_;
    return [this](const Event& event) { take(event); };
  }

  std::map<RequestId, std::vector<Generated>> wait() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return n_open_ == 0; });
    CHECK(errors_.empty());
    return tokens_;
  }

  int n_cached_tokens(RequestId id) {
    const std::lock_guard lock(mutex_);
    return n_cached_[id];
  }

 private:
  void take(const Event& event) {
    const std::lock_guard lock(mutex_);
    if (!event.finished) {
      tokens_[event.request_id].push_back({event.token, event.logprob});
      return;
    }
    errors_ += event.error;
    n_cached_[event.request_id] = event.stats.n_cached_tokens;
    --n_open_;
    changed_.notify_all();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, std::vector<Generated>> tokens_;
  std::map<RequestId, int> n_cached_;
  std::string errors_;  // checked in wait: Catch2's checks belong to the test's own thread
  int n_open_ = 0;
};

Request request_of(const std::vector<int32_t>& tokens, int n_prompt, float temperature) {
  Request request;
  request.prompt_tokens.assign(tokens.begin(), tokens.begin() + n_prompt);
  request.max_tokens = 12;
  request.sampling.temperature = temperature;
  request.sampling.seed = 11;
  request.sampling.n_logprobs = 0;
  return request;
}

std::vector<Generated> generate(Engine& engine, const Request& request) {
  Collector collector;
  const auto result = engine.submit(request, collector.sink());
  REQUIRE_FALSE(result.error);
  return collector.wait()[result.request_id];
}

EngineOptions engine_options(CpuKernels kernels) {
  EngineOptions options = tests::small_options();
  options.cpu_kernels = kernels;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 16;  // prompts of 24 come in two chunks
  return options;
}

constexpr CpuKernels kBothKernels[] = {CpuKernels::kReference, CpuKernels::kFast};

}  // namespace

TEST_CASE("Engine over a real model gives a request the same bits alone and among seven others") {
  for (const CpuKernels kernels : kBothKernels) {
    for (const char* name : {"llama_tied", "gemma3"}) {
      const auto& golden = golden_model(name);
      const auto file = gguf::GgufFile::open(golden.path);
      const auto engine = Engine::load(file, engine_options(kernels));
      for (const float temperature : {0.0f, 1.0f}) {
        const Request request = request_of(golden.tokens, 24, temperature);
        const auto alone = generate(*engine, request);
        REQUIRE(alone.size() == 12);

        Collector collector;
        RequestId id = 0;
        for (int i = 0; i < 8; ++i) {
          const Request other = request_of(golden.tokens, 5 + 3 * i, temperature);
          const auto result = engine->submit(i == 4 ? request : other, collector.sink());
          REQUIRE_FALSE(result.error);
          if (i == 4) id = result.request_id;
        }
        INFO(name << ", " << engine->stats().device << ", temperature " << temperature);
        CHECK(collector.wait()[id] == alone);
      }
    }
  }
}

TEST_CASE("A prompt found in the prefix cache gives the same bits as one that is computed") {
  for (const CpuKernels kernels : kBothKernels) {
    for (const char* name : {"qwen3", "gemma3"}) {
      const auto& golden = golden_model(name);
      const auto file = gguf::GgufFile::open(golden.path);
      const auto engine = Engine::load(file, engine_options(kernels));
      const Request request = request_of(golden.tokens, 30, 0.7f);
      const auto computed = generate(*engine, request);
      Collector collector;
      const auto result = engine->submit(request, collector.sink());
      INFO(name << ", " << engine->stats().device);
      CHECK(collector.wait()[result.request_id] == computed);
      CHECK(collector.n_cached_tokens(result.request_id) == 24);  // three blocks of 8
    }
  }
}

TEST_CASE("Engine over two ranks generates the tokens of one", "[tp]") {
  for (const auto& golden : tests::golden_models()) {
    const auto file = gguf::GgufFile::open(golden.path);
    auto options = engine_options(CpuKernels::kReference);
    const auto single = Engine::load(file, options);
    options.tp_size = 2;
    const auto pair = Engine::load(file, options);
    const Request request = request_of(golden.tokens, 24, 0.0f);
    const auto one = generate(*single, request);
    const auto two = generate(*pair, request);
    REQUIRE(one.size() == two.size());
    INFO(golden.name);
    for (size_t i = 0; i < one.size(); ++i) {
      CHECK(two[i].token == one[i].token);
      CHECK(two[i].logprob == Approx(one[i].logprob).margin(1e-4));
    }
  }
}

TEST_CASE("Worker's limits follow the model and the options") {
  const auto& golden = golden_model("llama_tied");  // 128 tokens of context
  const auto file = gguf::GgufFile::open(golden.path);
  auto options = tests::small_options();
  options.max_model_len = 4096;
  options.max_num_seqs = 3;
  options.n_kv_blocks = 0;
  const auto worker = make_worker(file, options);
  const ModelLimits& limits = worker->limits();
  CHECK(limits.max_model_len == 128);
  CHECK(limits.vocab_size == 61);
  CHECK(limits.block_size == 8);
  CHECK(limits.n_kv_blocks == 3 * 128 / 8);
  // Two layers of keys and values, two KV heads of 8 values in f32.
  CHECK(limits.kv_bytes == int64_t{48} * 8 * 2 * 2 * 2 * 8 * 4);
  CHECK(limits.eog_token_ids.empty());
  CHECK(limits.weight_bytes >= file.find_tensor("token_embd.weight")->size_bytes);
  CHECK(limits.weight_bytes <= file.size_bytes());
  CHECK(worker->alive());
}

TEST_CASE(
    "Blocks of the KV cache stay within a quarter of the free memory, one sequence at least") {
  EngineOptions options;
  options.block_size = 16;
  options.max_num_seqs = 4;
  options.n_kv_blocks = 0;
  CHECK(choose_n_kv_blocks(options, 1000, 100, 1 << 30) == 4 * 63);
  CHECK(choose_n_kv_blocks(options, 1000, 100, 100 * 4 * 100) == 100);
  CHECK(choose_n_kv_blocks(options, 1000, 100, 0) == 63);
  options.n_kv_blocks = 5;
  CHECK(choose_n_kv_blocks(options, 1000, 100, 1 << 30) == 5);
}

TEST_CASE("Worker refuses a batch that would leave its buffers") {
  const auto& golden = golden_model("llama_tied");
  const auto file = gguf::GgufFile::open(golden.path);
  auto options = tests::small_options();
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 8;
  ModelWorker worker(file, options);
  const auto error_of = [&](auto change) -> std::string {
    Batch batch;
    tests::add_tokens(batch, golden.tokens, 0, 4, {0}, 8);
    batch.sample_rows.erase(batch.sample_rows.begin(), batch.sample_rows.end() - 1);
    change(batch);
    try {
      worker.run_logits(batch);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  };
  CHECK(error_of([](Batch&) {}).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.token_ids[1] = 61; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.token_ids[1] = -1; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.positions[0] = 64; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.slot_mapping[3] = 64 * 8; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.block_tables[0] = 64; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.block_tables[0] = -1; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.query_starts[1] = 3; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.sample_rows[0].token_idx = 4; }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b.sample_rows.push_back(b.sample_rows[0]); }).empty());
  CHECK_FALSE(error_of([](Batch& b) { b = Batch{}; }).empty());
  CHECK_FALSE(error_of([&](Batch& b) {
                b = Batch{};
                tests::add_tokens(b, golden.tokens, 0, 9, {0, 1}, 8);
                b.sample_rows.clear();
              }).empty());
}

TEST_CASE("Options that make no sense are named") {
  const auto file = gguf::GgufFile::open(golden_model("llama_tied").path);
  auto options = tests::small_options();
  options.tp_size = 0;
  CHECK_THROWS_WITH(make_worker(file, options), "tp_size: 0, expected at least 1");
  options.tp_size = 1;
  options.block_size = -1;
  CHECK_THROWS_WITH(make_worker(file, options), "block_size: -1, expected at least 1");
  options.block_size = 8;
  options.device = Device::kCuda;
  setenv("DSCTL_CUDA_LIBRARY", "/nowhere/libdsctl_cuda.so", 1);
  CHECK_THROWS_WITH(make_worker(file, options), Catch::Contains("device cuda: cannot load"));
  unsetenv("DSCTL_CUDA_LIBRARY");
}

}  // namespace dsctl::engine
