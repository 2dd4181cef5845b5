// Hidden states of prompts: against transformers, and the same bits however they are computed.
#include "engine/pooling.h"

#include <cmath>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "engine/engine.h"
#include "engine/error.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

struct Outcome {
  FinishReason reason = FinishReason::kError;
  std::vector<float> pooled;
  std::vector<int32_t> tokens;
  int n_cached = 0;
};

/// Submits all requests at once and waits for all of them.
std::vector<Outcome> run_all(Engine& engine, const std::vector<Request>& requests) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Outcome> outcomes(requests.size());
  size_t n_finished = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SubmitResult result = engine.submit(requests[i], [&, i](const Event& event) {
      const std::lock_guard lock(mutex);
      if (!event.finished) {
        outcomes[i].tokens.push_back(event.token);
        return;
      }
      outcomes[i].reason = event.reason;
      outcomes[i].pooled = event.pooled;
      outcomes[i].n_cached = event.stats.n_cached_tokens;
      ++n_finished;
      changed.notify_all();
    });
    INFO(result.message);
    REQUIRE_FALSE(result.error);
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return n_finished == requests.size(); });
  return outcomes;
}

Request pooled_request(std::vector<int32_t> tokens, Pooling pooling) {
  Request request;
  request.prompt_tokens = std::move(tokens);
  request.pooling = pooling;
  return request;
}

Request generation_request(std::vector<int32_t> tokens, int max_tokens) {
  Request request;
  request.prompt_tokens = std::move(tokens);
  request.max_tokens = max_tokens;
  request.sampling.temperature = 0.0f;
  request.sampling.ignore_eos = true;
  return request;
}

std::vector<int32_t> first_tokens(const tests::GoldenModel& model, size_t n) {
  return {model.tokens.begin(), model.tokens.begin() + static_cast<ptrdiff_t>(n)};
}

TEST_CASE("Pooled states are those of transformers") {
  const CpuKernels kernels = GENERATE(CpuKernels::kReference, CpuKernels::kFast);
  for (const tests::GoldenModel& model : tests::golden_models()) {
    CAPTURE(model.name);
    REQUIRE_FALSE(model.mean_state.empty());
    const auto file = gguf::GgufFile::open(model.path);
    EngineOptions options = tests::small_options();
    options.cpu_kernels = kernels;
    const auto engine = Engine::load(file, options);
    const auto outcomes = run_all(*engine, {pooled_request(model.tokens, Pooling::kMean),
                                            pooled_request(model.tokens, Pooling::kLast),
                                            pooled_request(model.tokens, Pooling::kTokens),
                                            pooled_request(model.tokens, Pooling::kFirst)});
    CHECK(outcomes[0].reason == FinishReason::kStop);
    CHECK(outcomes[0].tokens.empty());
    CHECK(tests::max_abs_error(outcomes[0].pooled, model.mean_state) < 1e-4);
    CHECK(tests::max_abs_error(outcomes[1].pooled, model.last_state) < 1e-4);
    // Each token's: the first and the last of them are what the others say.
    const size_t dim = model.mean_state.size();
    const std::vector<float>& all = outcomes[2].pooled;
    REQUIRE(all.size() == model.tokens.size() * dim);
    CHECK(std::vector<float>(all.begin(), all.begin() + static_cast<ptrdiff_t>(dim)) ==
          outcomes[3].pooled);
    CHECK(std::vector<float>(all.end() - static_cast<ptrdiff_t>(dim), all.end()) ==
          outcomes[1].pooled);
  }
}

TEST_CASE("A prompt's pooled states are the same bits alone, in company and in chunks") {
  const std::string name = GENERATE("llama_untied_bias", "gemma3", "qwen3moe", "deepseek_v3");
  const Pooling pooling =
      GENERATE(Pooling::kTokens, Pooling::kMean, Pooling::kFirst, Pooling::kLast);
  CAPTURE(name, static_cast<int>(pooling));
  const tests::GoldenModel& model = tests::golden_model(name);
  const auto file = gguf::GgufFile::open(model.path);
  std::vector<Request> requests;
  for (size_t i = 0; i < 8; ++i)
    requests.push_back(pooled_request(first_tokens(model, 40 - 3 * i), pooling));

  EngineOptions options = tests::small_options();
  options.prefix_caching = false;
  std::vector<std::vector<float>> alone;
  {
    const auto engine = Engine::load(file, options);
    for (const Request& request : requests)
      alone.push_back(run_all(*engine, {request})[0].pooled);
  }
  const auto check = [&](const std::vector<Outcome>& outcomes) {
    for (size_t i = 0; i < alone.size(); ++i)
      CHECK(outcomes[i].pooled == alone[i]);
  };
  check(run_all(*Engine::load(file, options), requests));
  // With generations among them, in steps of few tokens, from a warm prefix cache.
  options.prefix_caching = true;
  options.max_num_batched_tokens = 11;
  options.max_num_seqs = 5;
  const auto engine = Engine::load(file, options);
  requests.push_back(generation_request(first_tokens(model, 20), 12));
  const auto cold = run_all(*engine, requests);
  check(cold);
  const auto warm = run_all(*engine, requests);
  check(warm);
  CHECK(warm.back().tokens == cold.back().tokens);
  CHECK(warm.back().tokens == run_all(*Engine::load(file, options), {requests.back()})[0].tokens);
  // Where states of the beginning are wanted, nothing of it may come from the cache.
  CHECK((warm[0].n_cached > 0) == (pooling == Pooling::kLast));
}

TEST_CASE("Two ranks pool the same states as one") {
  for (const char* name : {"llama_untied_bias", "gemma3", "deepseek_v3"}) {
    CAPTURE(name);
    const tests::GoldenModel& model = tests::golden_model(name);
    const auto file = gguf::GgufFile::open(model.path);
    EngineOptions options = tests::small_options();
    options.tp_size = 2;
    const auto engine = Engine::load(file, options);
    const auto outcomes = run_all(*engine, {pooled_request(model.tokens, Pooling::kMean),
                                            generation_request(first_tokens(model, 9), 5),
                                            pooled_request(model.tokens, Pooling::kLast)});
    CHECK(tests::max_abs_error(outcomes[0].pooled, model.mean_state) < 1e-4);
    CHECK(tests::max_abs_error(outcomes[2].pooled, model.last_state) < 1e-4);
  }
}

TEST_CASE("A pooled prompt that lost its blocks begins again") {
  const tests::GoldenModel& model = tests::golden_model("llama_untied_bias");
  const auto file = gguf::GgufFile::open(model.path);
  EngineOptions options = tests::small_options();
  options.block_size = 8;
  options.n_kv_blocks = 7;
  options.max_model_len = 48;
  options.max_num_batched_tokens = 2;
  options.max_num_seqs = 2;
  const auto engine = Engine::load(file, options);
  const auto outcomes = run_all(*engine, {generation_request(first_tokens(model, 8), 40),
                                          pooled_request(model.tokens, Pooling::kMean)});
  CHECK(engine->stats().n_preemptions > 0);
  CHECK(tests::max_abs_error(outcomes[1].pooled, model.mean_state) < 1e-4);
  CHECK(outcomes[0].tokens.size() == 40);
}

TEST_CASE("A pooled request can be cancelled, and says nothing then") {
  const tests::GoldenModel& model = tests::golden_model("llama_untied_bias");
  const auto file = gguf::GgufFile::open(model.path);
  EngineOptions options = tests::small_options();
  options.max_num_batched_tokens = 1;
  options.max_num_seqs = 1;
  const auto engine = Engine::load(file, options);
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Event> ends;
  const auto sink = [&](const Event& event) {
    const std::lock_guard lock(mutex);
    if (event.finished) ends.push_back(event);
    changed.notify_all();
  };
  // The first one holds the only place, so the second one is certain to be cancelled in time.
  const auto first = engine->submit(generation_request(first_tokens(model, 30), 30), sink);
  const auto second = engine->submit(pooled_request(model.tokens, Pooling::kMean), sink);
  engine->cancel(second.request_id);
  engine->cancel(first.request_id);
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return ends.size() == 2; });
  for (const Event& end : ends) {
    if (end.request_id != second.request_id) continue;
    CHECK(end.reason == FinishReason::kCancelled);
    CHECK(end.pooled.empty());
  }
}

TEST_CASE("A pooled prompt may fill the context, and needs a classifier to be ranked") {
  const tests::GoldenModel& model = tests::golden_model("llama_untied_bias");
  const auto file = gguf::GgufFile::open(model.path);
  EngineOptions options = tests::small_options();
  options.max_model_len = 24;
  const auto engine = Engine::load(file, options);
  const auto nobody = [](const Event&) {};
  CHECK(run_all(*engine, {pooled_request(first_tokens(model, 24), Pooling::kMean)})[0].reason ==
        FinishReason::kStop);
  const auto too_long =
      engine->submit(pooled_request(first_tokens(model, 25), Pooling::kMean), nobody);
  CHECK(too_long.error == SubmitError::kPromptTooLong);
  const auto ranked =
      engine->submit(pooled_request(first_tokens(model, 5), Pooling::kRank), nobody);
  CHECK(ranked.error == SubmitError::kBadPooling);
  CHECK(ranked.message.find("cls.output.weight") != std::string::npos);
  Request both = pooled_request(first_tokens(model, 5), Pooling::kMean);
  both.grammar.emplace();
  CHECK(engine->submit(both, nobody).error == SubmitError::kBadPooling);
}

TEST_CASE("A classifier's scores are those of the last state") {
  const tests::GoldenModel& model = tests::golden_model("qwen3");
  const tests::TempDir dir;
  const auto path = dir.path() / "reranker.gguf";
  const size_t dim = model.last_state.size();
  std::vector<float> weight(2 * dim);
  for (size_t i = 0; i < weight.size(); ++i)
    weight[i] = std::sin(static_cast<float>(i));
  tests::Changes changes;
  changes.more = [&](gguf::GgufWriter& writer) {
    writer.add("qwen3.pooling_type", uint32_t{4});
    writer.add_tensor("cls.output.weight", {static_cast<int64_t>(dim), 2}, weight);
  };
  tests::copy_model(model.path, path, changes);
  const auto file = gguf::GgufFile::open(path);
  CHECK(model_pooling(file) == Pooling::kRank);
  const auto engine = Engine::load(file, tests::small_options());
  const auto scores = run_all(*engine, {pooled_request(model.tokens, Pooling::kRank)})[0].pooled;
  REQUIRE(scores.size() == 2);
  double logits[2] = {};
  for (size_t i = 0; i < weight.size(); ++i)
    logits[i / dim] += double{weight[i]} * double{model.last_state[i % dim]};
  const double yes = 1.0 / (1.0 + std::exp(logits[1] - logits[0]));
  CHECK(scores[0] == Approx(yes).margin(1e-4));
  CHECK(scores[0] + scores[1] == Approx(1.0).margin(1e-6));
}

TEST_CASE("The pooling is the file's, else the last token's") {
  const tests::GoldenModel& model = tests::golden_model("qwen2");
  CHECK(model_pooling(gguf::GgufFile::open(model.path)) == Pooling::kLast);
  const tests::TempDir dir;
  const auto with_type = [&](uint32_t type) {
    const auto path = dir.path() / (std::to_string(type) + ".gguf");
    tests::Changes changes;
    changes.more = [type](gguf::GgufWriter& writer) { writer.add("qwen2.pooling_type", type); };
    tests::copy_model(model.path, path, changes);
    return model_pooling(gguf::GgufFile::open(path));
  };
  CHECK(with_type(0) == Pooling::kLast);
  CHECK(with_type(1) == Pooling::kMean);
  CHECK(with_type(2) == Pooling::kFirst);
  CHECK(with_type(3) == Pooling::kLast);
  CHECK(with_type(4) == Pooling::kRank);
  CHECK_THROWS_AS(with_type(9), Error);
}

}  // namespace
}  // namespace dsctl::engine
