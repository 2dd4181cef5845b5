#include "engine/engine.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "engine/error.h"
#include "engine/sampler.h"
#include "tests/support/catch.h"
#include "tests/support/engine_fake_worker.h"

namespace dsctl::engine {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();

/// Keeps the events of many requests and waits for their ends.
class Events {
 public:
  EventSink sink() {
    return [this](const Event& event) {
      const std::lock_guard lock(mutex_);
      events_[event.request_id].push_back(event);
      changed_.notify_all();
    };
  }

  /// The end of a request, once it has come.
  Event wait(RequestId id) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return !events_[id].empty() && events_[id].back().finished; });
    return events_[id].back();
  }

  void wait_for_tokens(RequestId id, size_t n) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return events_[id].size() >= n; });
  }

  std::vector<int32_t> tokens(RequestId id) {
    const std::lock_guard lock(mutex_);
    std::vector<int32_t> result;
    for (const Event& event : events_[id]) {
      if (!event.finished) result.push_back(event.token);
    }
    return result;
  }

  std::vector<Event> all(RequestId id) {
    const std::lock_guard lock(mutex_);
    return events_[id];
  }

  size_t n_finishes(RequestId id) {
    const auto events = all(id);
    return static_cast<size_t>(std::count_if(events.begin(), events.end(),
                                             [](const Event& event) { return event.finished; }));
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<RequestId, std::vector<Event>> events_;
};

/// Lets the engine's steps through one by one.
class Gate {
 public:
  void pass() {
    std::unique_lock lock(mutex_);
    ++n_waiting_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return n_allowed_ > 0; });
    --n_allowed_;
    --n_waiting_;
  }
  void allow(int n) {
    const std::lock_guard lock(mutex_);
    n_allowed_ += n;
    changed_.notify_all();
  }
  void open() { allow(1 << 30); }
  /// Returns when a step stands before the gate.
  void wait_for_step() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return n_waiting_ > n_allowed_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int n_allowed_ = 0;
  int n_waiting_ = 0;
};

/// An engine over the fake worker. Members in the order in which they must live.
struct House {
  explicit House(tests::FakeModel model, const EngineOptions& options = {})
      : engine(make_engine(std::make_unique<tests::FakeWorker>(std::move(model), &violations),
                           options)) {}
  ~House() {
    engine.reset();
    CHECK(violations == std::vector<std::string>{});
  }

  RequestId submit(Request request) {
    const SubmitResult result = engine->submit(std::move(request), events.sink());
    INFO(result.message);
    REQUIRE_FALSE(result.error);
    return result.request_id;
  }

  std::vector<std::string> violations;
  Events events;
  std::unique_ptr<Engine> engine;
};

tests::FakeModel model_of(ModelLimits limits) {
  tests::FakeModel model;
  model.limits = std::move(limits);
  return model;
}

tests::FakeModel gated_model(ModelLimits limits, Gate* gate) {
  tests::FakeModel model = model_of(std::move(limits));
  model.on_step = [gate](const Batch&) { gate->pass(); };
  return model;
}

Request request_of(std::vector<int32_t> prompt, int max_tokens = 8) {
  Request request;
  request.prompt_tokens = std::move(prompt);
  request.max_tokens = max_tokens;
  request.sampling.seed = 7;
  return request;
}

// ---- Determinism ----

struct Expected {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  FinishReason reason = FinishReason::kLength;
};

/// What a request must give, computed without engine, scheduler or cache.
Expected expect(const Request& request, const ModelLimits& limits) {
  Expected expected;
  std::vector<int32_t> history = request.prompt_tokens;
  std::vector<int32_t> stops = limits.eog_token_ids;
  stops.insert(stops.end(), request.stop_token_ids.begin(), request.stop_token_ids.end());
  Sampler sampler(limits.vocab_size);
  float mu = 2.0f * request.sampling.mirostat_tau;
  const auto n_max =
      static_cast<size_t>(request.max_tokens < 0 ? limits.max_model_len : request.max_tokens);
  while (expected.tokens.size() < n_max &&
         static_cast<int>(history.size()) < limits.max_model_len) {
    SampleRow row;
    row.params = &request.sampling;
    row.history = &history;
    row.n_prompt = static_cast<int>(request.prompt_tokens.size());
    row.seed = *request.sampling.seed;
    row.mirostat_mu = mu;
    if (static_cast<int>(expected.tokens.size()) < request.sampling.min_tokens) {
      row.banned = &stops;
    } else if (request.sampling.ignore_eos) {
      row.banned = &limits.eog_token_ids;
    }
    auto logits = tests::fake_logits(history, limits.vocab_size);
    const SampledToken sampled = sampler.sample(logits, row);
    mu = sampled.mirostat_mu;
    if (std::find(stops.begin(), stops.end(), sampled.token) != stops.end()) {
      expected.reason = FinishReason::kStop;
      return expected;
    }
    expected.tokens.push_back(sampled.token);
    expected.logprobs.push_back(sampled.logprob);
    history.push_back(sampled.token);
  }
  return expected;
}

/// Requests of many kinds; several share a beginning.
std::vector<Request> mixed_requests(int n) {
  std::vector<Request> requests;
  for (int i = 0; i < n; ++i) {
    Request request = request_of({}, 5 + i * 7 % 30);
    const int n_prompt = 1 + i * 11 % 43;
    for (int j = 0; j < n_prompt; ++j) {
      request.prompt_tokens.push_back((j < 24 ? j + i % 3 : j * i) % 50);
    }
    request.sampling.seed = static_cast<uint64_t>(i);
    request.sampling.n_logprobs = i % 4 - 1;
    if (i % 5 == 0) request.sampling.temperature = 0.0f;
    if (i % 5 == 1) request.sampling.repeat_penalty = 1.3f;
    if (i % 5 == 2) {
      request.sampling.mirostat = 1 + i % 2;
      request.sampling.mirostat_tau = 1.5f;  // low enough to drop tokens of a small vocabulary
    }
    if (i % 5 == 3) request.sampling.min_tokens = 4;
    if (i % 5 == 4) request.sampling.ignore_eos = true;
    if (i % 7 == 0) request.stop_token_ids = {3, 4, 5};
    if (i % 6 == 0) {
      request.sampling.dry_multiplier = 1.0f;
      request.sampling.dry_sequence_breakers.clear();
    }
    if (i % 9 == 0) request.max_tokens = -1;
    requests.push_back(std::move(request));
  }
  return requests;
}

TEST_CASE("The same tokens alone, in a batch, in chunks, from the cache and after preemption") {
  struct Setting {
    int n_blocks;
    int block_size;
    int max_num_seqs;
    int max_num_batched_tokens;
    bool prefix_caching;
  };
  const auto requests = mixed_requests(40);
  int64_t n_preemptions = 0;
  int n_cached = 0;
  for (const Setting& setting : {
           Setting{200, 16, 1, 512, false},  // one after the other, whole prompts
           Setting{200, 16, 16, 512, true},
           Setting{200, 4, 16, 20, true},  // chunks
           Setting{40, 4, 16, 64, true},   // scarce
           Setting{20, 8, 16, 64, false},  // scarce, everything computed again
           Setting{160, 1, 7, 7, true},    // a block for each token
           Setting{27, 6, 40, 1000, true},
       }) {
    const ModelLimits limits =
        tests::fake_limits(setting.n_blocks, setting.block_size, 160, {0, 49});
    EngineOptions options;
    options.max_num_seqs = setting.max_num_seqs;
    options.max_num_batched_tokens = setting.max_num_batched_tokens;
    options.prefix_caching = setting.prefix_caching;
    House house(model_of(limits), options);
    std::vector<RequestId> ids;
    for (const Request& request : requests)
      ids.push_back(house.submit(request));
    for (size_t i = 0; i < ids.size(); ++i) {
      CAPTURE(setting.n_blocks, setting.block_size, i);
      const Event end = house.events.wait(ids[i]);
      const Expected expected = expect(requests[i], limits);
      CHECK(house.events.tokens(ids[i]) == expected.tokens);
      CHECK(end.reason == expected.reason);
      CHECK(end.error == "");
      CHECK(end.stats.n_generated_tokens == static_cast<int>(expected.tokens.size()));
      CHECK(end.stats.n_prompt_tokens == static_cast<int>(requests[i].prompt_tokens.size()));
      CHECK(end.stats.n_cached_tokens < end.stats.n_prompt_tokens);
      n_cached += end.stats.n_cached_tokens;
      if (!setting.prefix_caching) CHECK(end.stats.n_cached_tokens == 0);
      const auto events = house.events.all(ids[i]);
      for (size_t j = 0; j + 1 < events.size(); ++j) {
        CHECK(events[j].logprob == expected.logprobs[j]);
        CHECK(static_cast<int>(events[j].top_logprobs.size()) ==
              std::max(requests[i].sampling.n_logprobs, 0));
      }
    }
    const EngineStats stats = house.engine->stats();
    CHECK(stats.n_free_kv_blocks == setting.n_blocks);
    CHECK(stats.n_running + stats.n_waiting == 0);
    n_preemptions += stats.n_preemptions;
  }
  CHECK(n_preemptions > 10);
  CHECK(n_cached > 100);
}

TEST_CASE("A seed that the engine drew is reported and gives the same tokens again") {
  House house(model_of(tests::fake_limits(64, 4, 100)));
  Request request = request_of({1, 2, 3}, 20);
  request.sampling.temperature = 2.0f;
  request.sampling.seed.reset();
  const RequestId first = house.submit(request);
  const RequestId other = house.submit(request);
  request.sampling.seed = house.events.wait(first).stats.seed;
  CHECK(*request.sampling.seed <= 0xFFFFFFFF);
  const RequestId again = house.submit(request);
  CHECK(house.events.wait(again).stats.seed == *request.sampling.seed);
  CHECK(house.events.tokens(first) == house.events.tokens(again));
  CHECK(house.events.wait(other).stats.seed != *request.sampling.seed);
  CHECK(house.events.tokens(first) != house.events.tokens(other));
}

// ---- How generations end ----

TEST_CASE("A generation ends by max_tokens, by the context and by an end token") {
  const ModelLimits limits = tests::fake_limits(64, 4, 30, {11});
  House house(model_of(limits));
  Request request = request_of({1, 2, 3}, 4);
  request.sampling.ignore_eos = true;
  CHECK(house.events.wait(house.submit(request)).reason == FinishReason::kLength);
  request.max_tokens = -1;
  const Event by_context = house.events.wait(house.submit(request));
  CHECK(by_context.reason == FinishReason::kLength);
  CHECK(by_context.stats.n_generated_tokens == 27);
  request.max_tokens = 1 << 30;
  CHECK(house.events.wait(house.submit(request)).stats.n_generated_tokens == 27);
  // The end token: forced by a bias after two tokens.
  request.sampling.ignore_eos = false;
  request.sampling.min_tokens = 2;
  request.sampling.logit_bias = {{11, 1000.0f}};
  const RequestId id = house.submit(request);
  const Event by_end = house.events.wait(id);
  CHECK(by_end.reason == FinishReason::kStop);
  CHECK(by_end.stats.n_generated_tokens == 2);
  CHECK(house.events.tokens(id).size() == 2);
  // A stop token of the request's own works like one of the model's, also when those are ignored.
  request.stop_token_ids = {20};
  request.sampling.ignore_eos = true;
  request.sampling.min_tokens = 3;
  request.sampling.logit_bias = {{20, 1000.0f}, {11, 2000.0f}};
  const RequestId stopped = house.submit(request);
  CHECK(house.events.wait(stopped).reason == FinishReason::kStop);
  const auto tokens = house.events.tokens(stopped);
  CHECK(tokens.size() == 3);
  CHECK(std::count(tokens.begin(), tokens.end(), 20) +
            std::count(tokens.begin(), tokens.end(), 11) ==
        0);
}

TEST_CASE("max_tokens 0 computes the prompt only, and the next request finds it") {
  House house(model_of(tests::fake_limits(64, 4, 100)));
  std::vector<int32_t> prompt(21, 5);
  const RequestId id = house.submit(request_of(prompt, 0));
  const Event end = house.events.wait(id);
  CHECK(end.reason == FinishReason::kLength);
  CHECK(end.stats.n_generated_tokens == 0);
  CHECK(house.events.all(id).size() == 1);
  CHECK(house.events.wait(house.submit(request_of(prompt, 2))).stats.n_cached_tokens == 20);
}

TEST_CASE("Times and counts of a request add up") {
  House house(model_of(tests::fake_limits(64, 4, 100)));
  const Event end = house.events.wait(house.submit(request_of({1, 2, 3, 4, 5}, 10)));
  CHECK(end.stats.queue_ns >= 0);
  CHECK(end.stats.prefill_ns > 0);
  CHECK(end.stats.decode_ns > 0);
  const EngineStats stats = house.engine->stats();
  CHECK(stats.n_prompt_tokens == 5);
  CHECK(stats.n_generated_tokens == 10);
  CHECK(stats.n_steps == 10);
  CHECK(stats.n_kv_blocks == 64);
  CHECK(stats.n_free_kv_blocks == 64);
  CHECK(stats.max_model_len == 100);
  CHECK(stats.device == "fake");
  CHECK(stats.weight_bytes == 11);
  CHECK(stats.kv_bytes == 22);
}

// ---- Refusals ----

std::optional<SubmitError> refusal(House& house, const Request& request, const char* part) {
  const SubmitResult result = house.engine->submit(request, [](const Event&) { FAIL("an event"); });
  CHECK_THAT(result.message, Catch::Contains(part));
  return result.error;
}

TEST_CASE("A request that can't be served is refused with a reason") {
  House house(model_of(tests::fake_limits(5, 4, 100)));
  CHECK(house.engine->stats().max_model_len == 20);  // what five blocks hold
  CHECK(refusal(house, request_of({}), "no tokens") == SubmitError::kEmptyPrompt);
  CHECK(refusal(house, request_of({1, 50}), "token 50") == SubmitError::kBadToken);
  CHECK(refusal(house, request_of({-1}), "token -1") == SubmitError::kBadToken);
  CHECK(refusal(house, request_of(std::vector<int32_t>(20, 1)), "has 20 tokens") ==
        SubmitError::kPromptTooLong);
  CHECK(house.events.wait(house.submit(request_of(std::vector<int32_t>(19, 1)))).reason ==
        FinishReason::kLength);
  Request request = request_of({1});
  request.stop_token_ids = {99};
  CHECK(refusal(house, request, "stop_token_ids") == SubmitError::kBadToken);
  const auto refuse = [&](auto change, const char* part) {
    Request changed = request_of({1});
    change(changed.sampling);
    return refusal(house, changed, part);
  };
  using P = SamplingParams;
  CHECK(refuse([](P& p) { p.logit_bias = {{50, 1.0f}}; }, "logit_bias") == SubmitError::kBadToken);
  for (const auto& [change, part] : std::vector<std::pair<void (*)(P&), const char*>>{
           {[](P& p) { p.temperature = std::numeric_limits<float>::quiet_NaN(); }, "temperature"},
           {[](P& p) { p.top_p = kInf; }, "top_p"},
           {[](P& p) { p.repeat_penalty = 0.0f; }, "repeat_penalty: 0"},
           {[](P& p) { p.repeat_last_n = -2; }, "repeat_last_n"},
           {[](P& p) { p.mirostat = 3; }, "mirostat: 3"},
           {[](P& p) { p.n_logprobs = 51; }, "n_logprobs: 51"},
           {[](P& p) { p.n_logprobs = -2; }, "n_logprobs"},
           {[](P& p) { p.min_tokens = -1; }, "min_tokens"},
           {[](P& p) {
              p.logit_bias = {{1, kInf}};
            },
            "logit_bias"},
           {[](P& p) { p.dry_multiplier = 1.0f; }, "without a tokenizer"},
       }) {
    CHECK(refuse(change, part) == SubmitError::kBadSampling);
  }
  CHECK_FALSE(house.engine
                  ->submit(
                      [] {
                        Request banned = request_of({1});
                        banned.sampling.logit_bias = {{1, -kInf}};
                        return banned;
                      }(),
                      house.events.sink())
                  .error);
}

TEST_CASE("An engine is not made from options that make no sense") {
  std::vector<std::string> violations;
  const auto make = [&](const ModelLimits& limits, const EngineOptions& options) {
    return make_engine(std::make_unique<tests::FakeWorker>(model_of(limits), &violations), options);
  };
  const ModelLimits limits = tests::fake_limits(8, 4, 100);
  CHECK_THROWS_WITH(make(limits,
                         [] {
                           EngineOptions options;
                           options.max_num_seqs = 0;
                           return options;
                         }()),
                    Catch::Contains("max_num_seqs: 0"));
  EngineOptions options;
  options.max_queue = 0;
  CHECK_THROWS_AS(make(limits, options), Error);
  options = {};
  options.max_num_batched_tokens = -1;
  CHECK_THROWS_AS(make(limits, options), Error);
  options = {};
  options.max_model_len = 1;
  CHECK_THROWS_WITH(make(limits, options), Catch::Contains("max_model_len"));
  options = {};
  options.max_num_seqs = 16;
  options.max_num_batched_tokens = 3;  // fewer than sequences: only three run at once
  CHECK_NOTHROW(make(limits, options));
}

TEST_CASE("A full queue refuses until a waiting request is scheduled") {
  Gate gate;
  EngineOptions options;
  options.max_queue = 2;
  options.max_num_seqs = 1;
  House house(gated_model(tests::fake_limits(64, 4, 100), &gate), options);
  const RequestId running = house.submit(request_of({1}, 2));
  gate.wait_for_step();  // it has left the queue
  const RequestId second = house.submit(request_of({2}, 2));
  house.submit(request_of({3}, 2));
  CHECK(house.engine->stats().n_waiting == 2);
  CHECK(refusal(house, request_of({4}), "2 requests are waiting") == SubmitError::kQueueFull);
  gate.allow(2);
  house.events.wait(running);
  gate.wait_for_step();  // of the second
  const RequestId fourth = house.submit(request_of({4}, 2));
  gate.open();
  CHECK(house.events.wait(second).reason == FinishReason::kLength);
  CHECK(house.events.wait(fourth).reason == FinishReason::kLength);
}

// ---- Cancellation and the end of the engine ----

TEST_CASE("A request is cancelled while it waits, while it runs, and not after its end") {
  Gate gate;
  EngineOptions options;
  options.max_num_seqs = 1;
  House house(gated_model(tests::fake_limits(64, 4, 100), &gate), options);
  const RequestId running = house.submit(request_of({1}, 50));
  const RequestId waiting = house.submit(request_of({2}, 50));
  gate.allow(3);
  house.events.wait_for_tokens(running, 3);
  house.engine->cancel(waiting);
  gate.allow(1);
  const Event end = house.events.wait(waiting);
  CHECK(end.reason == FinishReason::kCancelled);
  CHECK(end.stats.n_generated_tokens == 0);
  CHECK(house.events.all(waiting).size() == 1);
  house.engine->cancel(running);
  gate.open();
  const Event cancelled = house.events.wait(running);
  CHECK(cancelled.reason == FinishReason::kCancelled);
  CHECK(cancelled.stats.n_generated_tokens >= 4);
  house.engine->cancel(running);
  house.engine->cancel(12345);
  const RequestId next = house.submit(request_of({3}, 3));
  CHECK(house.events.wait(next).reason == FinishReason::kLength);
  CHECK(house.events.n_finishes(running) == 1);
  CHECK(house.engine->stats().n_free_kv_blocks == 64);
}

TEST_CASE("Destroying the engine ends every request with a finish") {
  Gate gate;
  Events events;
  std::vector<std::string> violations;
  std::vector<RequestId> ids;
  EngineOptions options;
  options.max_num_seqs = 3;
  auto engine = make_engine(std::make_unique<tests::FakeWorker>(
                                gated_model(tests::fake_limits(64, 4, 100), &gate), &violations),
                            options);
  for (int i = 0; i < 10; ++i) {
    ids.push_back(engine->submit(request_of({i}, 60), events.sink()).request_id);
  }
  gate.wait_for_step();
  std::thread opener([&] { gate.open(); });
  engine.reset();
  opener.join();
  for (const RequestId id : ids) {
    CHECK(events.n_finishes(id) == 1);
    // Once the gate is open a request may come to its own end first.
    const FinishReason reason = events.all(id).back().reason;
    CHECK((reason == FinishReason::kCancelled || reason == FinishReason::kLength));
  }
}

// ---- Failures ----

TEST_CASE("A failing step fails its own requests and the engine goes on") {
  tests::FakeModel model = model_of(tests::fake_limits(64, 4, 100));
  // Fails when token 13 is computed; the queue holds one sequence at a time.
  model.on_step = [](const Batch& batch) {
    if (std::count(batch.token_ids.begin(), batch.token_ids.end(), 13) > 0) {
      throw Error("cannot compute 13");
    }
  };
  EngineOptions options;
  options.max_num_seqs = 1;
  House house(std::move(model), options);
  Request innocent = request_of({1, 2}, 5);
  innocent.sampling.logit_bias = {{13, -kInf}};
  const RequestId before = house.submit(innocent);
  const RequestId guilty = house.submit(request_of({1, 13}, 5));
  const RequestId after = house.submit(innocent);
  CHECK(house.events.wait(before).reason == FinishReason::kLength);
  const Event end = house.events.wait(guilty);
  CHECK(end.reason == FinishReason::kError);
  CHECK(end.error == "cannot compute 13");
  CHECK(house.events.wait(after).reason == FinishReason::kLength);
  CHECK(house.events.tokens(after) == house.events.tokens(before));
  CHECK(house.engine->stats().n_free_kv_blocks == 64);
}

TEST_CASE("A row that can't be sampled fails only its own request") {
  House house(model_of(tests::fake_limits(64, 4, 100)));
  Request hopeless = request_of({1, 2}, 5);
  for (int32_t token = 0; token < 50; ++token) {
    hopeless.sampling.logit_bias.emplace_back(token, -kInf);
  }
  const RequestId good = house.submit(request_of({1, 2}, 30));
  const RequestId bad = house.submit(hopeless);
  const Event end = house.events.wait(bad);
  CHECK(end.reason == FinishReason::kError);
  CHECK_THAT(end.error, Catch::Contains("no token can be chosen"));
  CHECK(house.events.wait(good).reason == FinishReason::kLength);
  CHECK(house.events.wait(good).stats.n_generated_tokens == 30);
}

TEST_CASE("A dead worker fails every request, and later ones are refused") {
  std::atomic<bool> alive{true};
  Gate gate;
  tests::FakeModel model = gated_model(tests::fake_limits(64, 4, 100), &gate);
  model.on_step = [&](const Batch& batch) {
    gate.pass();
    if (batch.positions.back() < 3) return;
    alive = false;
    throw Error("device lost");
  };
  model.is_alive = [&] { return alive.load(); };
  EngineOptions options;
  options.max_num_seqs = 2;
  House house(std::move(model), options);
  std::vector<RequestId> ids;
  for (int i = 0; i < 5; ++i)
    ids.push_back(house.submit(request_of({i}, 60)));
  gate.open();
  for (const RequestId id : ids) {
    const Event end = house.events.wait(id);
    CHECK(end.reason == FinishReason::kError);
    CHECK(end.error == "device lost");
    CHECK(house.events.n_finishes(id) == 1);
  }
  CHECK(refusal(house, request_of({1}), "device lost") == SubmitError::kStopped);
  CHECK(house.engine->stats().n_running + house.engine->stats().n_waiting == 0);
}

TEST_CASE("Results that a worker must not give are errors, not tokens") {
  tests::FakeModel model = model_of(tests::fake_limits(64, 4, 100));
  model.on_result = [](const Batch& batch, std::vector<SampledToken>& result) {
    if (batch.token_ids[0] == 1) result[0].token = 50;
    if (batch.token_ids[0] == 2) result.pop_back();
  };
  House house(std::move(model));
  const Event outside = house.events.wait(house.submit(request_of({1}, 5)));
  CHECK(outside.reason == FinishReason::kError);
  CHECK_THAT(outside.error, Catch::Contains("sampled token 50"));
  const Event missing = house.events.wait(house.submit(request_of({2}, 5)));
  CHECK(missing.reason == FinishReason::kError);
  CHECK_THAT(missing.error, Catch::Contains("sampled 0 tokens, expected 1"));
}

TEST_CASE("A sink that throws loses its request, others are served") {
  House house(model_of(tests::fake_limits(64, 4, 100)));
  std::atomic<int> n_calls{0};
  std::promise<FinishReason> reason;
  const SubmitResult thrower = house.engine->submit(request_of({1}, 20), [&](const Event& event) {
    ++n_calls;
    if (!event.finished) throw Error("the sink broke");
    reason.set_value(event.reason);
  });
  REQUIRE_FALSE(thrower.error);
  CHECK(reason.get_future().get() == FinishReason::kCancelled);
  const RequestId other = house.submit(request_of({1}, 20));
  CHECK(house.events.wait(other).stats.n_generated_tokens == 20);
  CHECK(n_calls == 2);
}

TEST_CASE("A sink may submit and cancel") {
  House house(model_of(tests::fake_limits(64, 4, 100)));
  std::promise<RequestId> follow_up;
  const auto first = house.engine->submit(request_of({1}, 20), [&](const Event& event) {
    if (!event.finished) {
      house.engine->cancel(event.request_id);
      return;
    }
    const auto next = house.engine->submit(request_of({2}, 3), house.events.sink());
    follow_up.set_value(next.request_id);
  });
  REQUIRE_FALSE(first.error);
  const RequestId next = follow_up.get_future().get();
  CHECK(house.events.wait(next).reason == FinishReason::kLength);
}

// ---- Threads ----

TEST_CASE("Many threads submit, cancel and look at once") {
  constexpr int kThreads = 4;
  constexpr int kRequests = 60;
  EngineOptions options;
  options.max_num_seqs = 6;
  options.max_num_batched_tokens = 24;
  const ModelLimits limits = tests::fake_limits(40, 4, 100, {0});
  House house(model_of(limits), options);
  const auto requests = mixed_requests(kRequests);
  std::vector<std::vector<RequestId>> ids(kThreads);
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (int i = 0; i < kRequests; ++i) {
          const auto result =
              house.engine->submit(requests[static_cast<size_t>(i)], house.events.sink());
          ids[static_cast<size_t>(thread)].push_back(result.request_id);
          if ((i + thread) % 5 == 0) house.engine->cancel(result.request_id);
          if (i % 3 == 0 && house.engine->stats().n_kv_blocks != 40) std::abort();
        }
      });
    }
  }
  int n_whole = 0;
  for (const auto& of_thread : ids) {
    for (size_t i = 0; i < of_thread.size(); ++i) {
      REQUIRE(of_thread[i] != 0);
      const Event end = house.events.wait(of_thread[i]);
      const Expected expected = expect(requests[i], limits);
      const auto tokens = house.events.tokens(of_thread[i]);
      CHECK(end.reason != FinishReason::kError);
      if (end.reason != FinishReason::kCancelled) {
        CHECK(tokens == expected.tokens);
        ++n_whole;
      } else {
        REQUIRE(tokens.size() <= expected.tokens.size());
        CHECK(std::equal(tokens.begin(), tokens.end(), expected.tokens.begin()));
      }
    }
  }
  CHECK(n_whole >= kThreads * kRequests * 3 / 4);
  CHECK(house.engine->stats().n_free_kv_blocks == 40);
}

}  // namespace
}  // namespace dsctl::engine
