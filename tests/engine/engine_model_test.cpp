// Engine, scheduler, cache, sampler and real models together: what a request gives depends on the
// request alone.
#include <condition_variable>
#include <mutex>
#include <vector>

#include "engine/engine.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"

namespace dsctl::engine {
namespace {

/// All that a request gave, bits of the log-probabilities included.
struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // of the chosen tokens and the five best each
  FinishReason reason = FinishReason::kError;
  int n_cached = 0;

  bool operator==(const Answer& other) const {
    return tokens == other.tokens && logprobs == other.logprobs && reason == other.reason;
  }
};

/// Submits all requests at once and returns their answers in the same order.
std::vector<Answer> answer_all(Engine& engine, const std::vector<Request>& requests) {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Answer> answers(requests.size());
  size_t n_finished = 0;
  for (size_t i = 0; i < requests.size(); ++i) {
    const SubmitResult result = engine.submit(requests[i], [&, i](const Event& event) {
      const std::lock_guard lock(mutex);
      Answer& answer = answers[i];
      if (event.finished) {
        answer.reason = event.reason;
        answer.n_cached = event.stats.n_cached_tokens;
        ++n_finished;
        changed.notify_all();
        return;
      }
      answer.tokens.push_back(event.token);
      answer.logprobs.push_back(event.logprob);
      for (const TokenLogprob& top : event.top_logprobs)
        answer.logprobs.push_back(top.logprob);
    });
    INFO(result.message);
    REQUIRE_FALSE(result.error);
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] { return n_finished == requests.size(); });
  return answers;
}

/// Eight requests, some with a common beginning, greedy and sampled.
std::vector<Request> eight_requests(const tests::GoldenModel& model) {
  std::vector<Request> requests(8);
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    const auto begin = model.tokens.begin() + static_cast<ptrdiff_t>(i % 2 * 3);
    request.prompt_tokens.assign(begin, begin + static_cast<ptrdiff_t>(9 + 2 * i));
    request.max_tokens = 10;
    request.sampling.seed = i;
    request.sampling.n_logprobs = 5;
    request.sampling.ignore_eos = true;
    if (i % 3 == 0) request.sampling.temperature = 0.0f;
    if (i % 3 == 1) request.sampling.repeat_penalty = 1.2f;
  }
  return requests;
}

std::vector<Answer> answers_with(const gguf::GgufFile& file, const EngineOptions& options,
                                 const std::vector<Request>& requests) {
  return answer_all(*Engine::load(file, options), requests);
}

TEST_CASE("A real model answers a request with the same bits in whatever company") {
  const CpuKernels kernels = GENERATE(CpuKernels::kReference, CpuKernels::kFast);
  for (const tests::GoldenModel& model : tests::golden_models()) {
    INFO(model.name);
    const auto file = gguf::GgufFile::open(model.path);
    const auto requests = eight_requests(model);
    EngineOptions options = tests::small_options();
    options.cpu_kernels = kernels;
    options.prefix_caching = false;
    options.max_num_seqs = 8;
    options.max_num_batched_tokens = 64;
    std::vector<Answer> alone;
    {
      const auto engine = Engine::load(file, options);
      for (const Request& request : requests) {
        alone.push_back(answer_all(*engine, {request})[0]);
        CHECK(alone.back().tokens.size() == 10);
        CHECK(alone.back().reason == FinishReason::kLength);
      }
    }
    CHECK(answers_with(file, options, requests) == alone);  // one batch
    options.prefix_caching = true;
    const auto engine = Engine::load(file, options);
    CHECK(answer_all(*engine, requests) == alone);
    const auto again = answer_all(*engine, requests);  // from the cache
    CHECK(again == alone);
    CHECK(again[7].n_cached >= 16);
    options.max_num_batched_tokens = 9;  // prompts in small chunks
    CHECK(answers_with(file, options, requests) == alone);
  }
}

TEST_CASE("Preemption does not change what a real model answers") {
  const tests::GoldenModel& model = tests::golden_models()[0];
  const auto file = gguf::GgufFile::open(model.path);
  const auto requests = eight_requests(model);
  EngineOptions options = tests::small_options();
  options.max_num_seqs = 8;
  const auto expected = answers_with(file, options, requests);
  options.max_model_len = 40;
  options.n_kv_blocks = 13;  // of 8 tokens: the eight want 24
  const auto engine = Engine::load(file, options);
  CHECK(answer_all(*engine, requests) == expected);
  CHECK(engine->stats().n_preemptions > 0);
  CHECK(engine->stats().n_free_kv_blocks == 13);
}

TEST_CASE("Two ranks give the tokens that one gives, request by request", "[tp]") {
  for (const tests::GoldenModel& model : tests::golden_models()) {
    INFO(model.name);
    const auto file = gguf::GgufFile::open(model.path);
    const auto requests = eight_requests(model);
    EngineOptions options = tests::small_options();
    options.tp_size = 1;
    const auto one = answers_with(file, options, requests);
    options.tp_size = 2;
    const auto two = answers_with(file, options, requests);
    for (size_t i = 0; i < requests.size(); ++i)
      CHECK(two[i].tokens == one[i].tokens);
  }
}

}  // namespace
}  // namespace dsctl::engine
