#include "engine/engine.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cassert>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "engine/error.h"
#include "engine/grammar/grammar.h"
#include "engine/pooling.h"
#include "engine/request_check.h"
#include "engine/sampler_penalties.h"
#include "engine/scheduler.h"
#include "engine/worker.h"

namespace dsctl::engine {
namespace {

using Clock = std::chrono::steady_clock;

int64_t nanoseconds(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(end - begin).count();
}

/// One request from submit to finish.
struct Generation {
  Sequence sequence;
  EventSink sink;
  std::vector<int32_t> stop_tokens;  // end the generation and are not emitted
  std::optional<Pooler> pooler;      // of a request that wants no tokens
  Clock::time_point submitted;
  std::optional<Clock::time_point> first_scheduled;
  std::optional<Clock::time_point> first_token;
  Clock::time_point last_token;
};

struct Cancel {
  RequestId id = 0;
};

using Message = std::variant<std::unique_ptr<Generation>, Cancel>;

/// Largest number of breaker lists kept resolved; users hardly ever have a second one.
constexpr size_t kMaxBreakerLists = 32;

class EngineThread final : public Engine {
 public:
  EngineThread(std::unique_ptr<Worker> worker, const EngineOptions& options);
  ~EngineThread() override;

  SubmitResult submit(Request request, EventSink sink) override;
  void cancel(RequestId id) override;
  EngineStats stats() const override;

 private:
  std::shared_ptr<GrammarMatcher> make_matcher(const Request& request);
  std::unique_ptr<Generation> make_generation(Request request, EventSink sink);

  // All below run on the engine's thread.
  void run();
  bool take_messages();
  void handle_messages();
  void handle(Message message);
  void step();
  void accept(Generation& generation, SampledToken sampled);
  bool take_states(const Batch& batch);
  void mark_scheduled();
  void fail_step(const std::string& reason);
  void fail_all(const std::string& reason);
  void finish_all(FinishReason reason, const std::string& error);
  void finish(RequestId id, FinishReason reason, const std::string& error = {});
  bool tell(Generation& generation, const Event& event);
  void resolve_breakers(Sequence& sequence);
  void publish();

  const std::unique_ptr<Worker> worker_;
  const ModelLimits limits_;
  const EngineOptions options_;
  const int max_model_len_;
  const std::unique_ptr<GrammarCache> grammars_;  // thread-safe; null without a tokenizer

  // Shared with the callers' threads, guarded by mutex_.
  mutable std::mutex mutex_;
  std::condition_variable has_messages_;
  std::vector<Message> inbox_;
  std::string closed_;  // why nothing more is taken; empty: open
  bool stopping_ = false;
  RequestId last_id_ = 0;
  int n_queued_ = 0;  // taken, but not scheduled yet
  std::mt19937_64 seeds_;
  EngineStats stats_;

  // Only touched by the engine's thread.
  BlockManager blocks_;
  Scheduler scheduler_;
  std::unordered_map<RequestId, std::unique_ptr<Generation>> generations_;
  std::map<std::vector<std::string>, std::shared_ptr<const DryBreakers>> breaker_lists_;
  std::vector<Message> messages_;  // taken from the inbox
  size_t n_handled_ = 0;           // of messages_
  std::string failure_;            // set once nothing works any more
  EngineStats counts_;             // what publish() shows; the running totals only

  std::jthread thread_;  // last: it uses all of the above
};

int effective_max_len(const ModelLimits& limits, const EngineOptions& options) {
  const int64_t capacity = int64_t{limits.n_kv_blocks} * limits.block_size;
  int64_t length = std::min<int64_t>(limits.max_model_len, capacity);
  if (options.max_model_len > 0) length = std::min<int64_t>(length, options.max_model_len);
  return static_cast<int>(length);
}

SchedulerOptions scheduler_options(const EngineOptions& options) {
  SchedulerOptions result;
  result.max_num_batched_tokens = options.max_num_batched_tokens;
  result.max_num_seqs = std::min(options.max_num_seqs, options.max_num_batched_tokens);
  return result;
}

EngineThread::EngineThread(std::unique_ptr<Worker> worker, const EngineOptions& options)
    : worker_(std::move(worker)),
      limits_(worker_->limits()),
      options_(options),
      max_model_len_(effective_max_len(limits_, options)),
      grammars_(options.tokenizer != nullptr ? std::make_unique<GrammarCache>(*options.tokenizer)
                                             : nullptr),
      blocks_(limits_.n_kv_blocks, limits_.block_size,
              options.prefix_caching ? PrefixCaching::kOn : PrefixCaching::kOff),
      scheduler_(scheduler_options(options), &blocks_) {
  std::random_device random;
  seeds_.seed((uint64_t{random()} << 32) | random());
  stats_.n_kv_blocks = limits_.n_kv_blocks;
  stats_.weight_bytes = limits_.weight_bytes;
  stats_.kv_bytes = limits_.kv_bytes;
  stats_.max_model_len = max_model_len_;
  stats_.device = limits_.device;
  publish();
  thread_ = std::jthread([this] { run(); });
}

EngineThread::~EngineThread() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    if (closed_.empty()) closed_ = "the engine is shutting down";
  }
  has_messages_.notify_one();
  thread_.join();
}

SubmitResult EngineThread::submit(Request request, EventSink sink) {
  SubmitResult result;
  const RequestLimits limits{.vocab_size = limits_.vocab_size,
                             .max_model_len = max_model_len_,
                             .has_tokenizer = options_.tokenizer != nullptr,
                             .gives_states = limits_.state_dim > 0,
                             .has_rank_head = limits_.rank_head != nullptr};
  if (auto refusal = check_request(request, limits)) {
    result.error = refusal->error;
    result.message = std::move(refusal->message);
    return result;
  }
  std::shared_ptr<GrammarMatcher> matcher;
  try {
    matcher = make_matcher(request);
  } catch (const Error& error) {
    result.error = SubmitError::kBadGrammar;
    result.message = error.what();
    return result;
  }
  auto generation = make_generation(std::move(request), std::move(sink));
  generation->sequence.grammar = std::move(matcher);
  {
    const std::lock_guard lock(mutex_);
    if (!closed_.empty()) {
      result.error = SubmitError::kStopped;
      result.message = closed_;
      return result;
    }
    if (n_queued_ >= options_.max_queue) {
      result.error = SubmitError::kQueueFull;
      result.message = std::to_string(n_queued_) + " requests are waiting, the most allowed is " +
                       std::to_string(options_.max_queue) + "; try again later";
      return result;
    }
    // Ids ascend in the order in which the engine's thread sees the requests.
    result.request_id = ++last_id_;
    Sequence& sequence = generation->sequence;
    sequence.id = result.request_id;
    // 32 bits, so that a client can give the reported seed back through any JSON library.
    sequence.seed = sequence.sampling.seed.value_or(seeds_() >> 32);
    ++n_queued_;
    ++stats_.n_waiting;
    inbox_.push_back(std::move(generation));
  }
  has_messages_.notify_one();
  return result;
}

/// On the caller's thread: a large grammar takes milliseconds. Null when the request has none.
std::shared_ptr<GrammarMatcher> EngineThread::make_matcher(const Request& request) {
  if (!request.grammar) return nullptr;
  if (grammars_ == nullptr) throw Error("grammar: the engine was loaded without its tokenizer");
  return std::make_shared<GrammarMatcher>(grammars_->get(*request.grammar), *request.grammar,
                                          *options_.tokenizer);
}

std::unique_ptr<Generation> EngineThread::make_generation(Request request, EventSink sink) {
  auto generation = std::make_unique<Generation>();
  generation->submitted = Clock::now();
  generation->sink = std::move(sink);
  Sequence& sequence = generation->sequence;
  sequence.tokens = std::move(request.prompt_tokens);
  sequence.n_prompt = sequence.n_tokens();
  const int room = max_model_len_ - sequence.n_prompt;
  sequence.max_len =
      sequence.n_prompt + (request.max_tokens < 0 ? room : std::min(room, request.max_tokens));
  sequence.wants_tokens = request.max_tokens != 0;
  if (request.pooling) {
    sequence.pooling = request.pooling;
    sequence.wants_tokens = false;
    sequence.max_len = sequence.n_prompt;
    generation->pooler.emplace(*request.pooling, sequence.n_prompt, limits_.state_dim);
  }
  sequence.sampling = std::move(request.sampling);
  sequence.min_tokens = sequence.sampling.min_tokens;
  sequence.mirostat_mu = 2.0f * sequence.sampling.mirostat_tau;
  const auto& eog = limits_.eog_token_ids;
  generation->stop_tokens = std::move(request.stop_token_ids);
  generation->stop_tokens.insert(generation->stop_tokens.end(), eog.begin(), eog.end());
  sequence.banned_early = generation->stop_tokens;
  if (sequence.sampling.ignore_eos) sequence.banned_always = eog;
  return generation;
}

void EngineThread::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    inbox_.push_back(Cancel{.id = id});
  }
  has_messages_.notify_one();
}

EngineStats EngineThread::stats() const {
  const std::lock_guard lock(mutex_);
  return stats_;
}

void EngineThread::run() {
  while (take_messages()) {
    try {
      handle_messages();
      if (!generations_.empty()) step();
    } catch (const std::exception& error) {
      fail_all(std::string("the engine failed: ") + error.what());
    }
    publish();
  }
  handle_messages();
  finish_all(FinishReason::kCancelled, {});
}

/// Moves the inbox to messages_, waiting for something to do. False when the engine is being
/// destroyed.
bool EngineThread::take_messages() {
  messages_.clear();
  n_handled_ = 0;
  std::unique_lock lock(mutex_);
  if (generations_.empty()) {
    has_messages_.wait(lock, [this] { return stopping_ || !inbox_.empty(); });
  }
  messages_.swap(inbox_);
  return !stopping_;
}

void EngineThread::handle_messages() {
  while (n_handled_ < messages_.size())
    handle(std::move(messages_[n_handled_++]));
}

void EngineThread::handle(Message message) {
  if (const auto* request = std::get_if<Cancel>(&message)) {
    if (generations_.contains(request->id)) finish(request->id, FinishReason::kCancelled);
    return;
  }
  auto generation = std::get<std::unique_ptr<Generation>>(std::move(message));
  Sequence& sequence = generation->sequence;
  generations_.emplace(sequence.id, std::move(generation));
  scheduler_.add(&sequence);
  if (!failure_.empty()) {  // while this request was on its way
    finish(sequence.id, FinishReason::kError, failure_);
    return;
  }
  try {
    resolve_breakers(sequence);
  } catch (const std::exception& error) {
    finish(sequence.id, FinishReason::kError,
           std::string("dry_sequence_breakers: ") + error.what());
  }
}

void EngineThread::step() {
  const Batch& batch = scheduler_.schedule();
  if (batch.n_tokens() == 0) throw Error("no step for requests that are waiting");
  mark_scheduled();
  std::vector<SampledToken> sampled;
  try {
    sampled = worker_->run(batch);
    if (sampled.size() != batch.sample_rows.size()) {
      throw Error("the worker sampled " + std::to_string(sampled.size()) + " tokens, expected " +
                  std::to_string(batch.sample_rows.size()));
    }
  } catch (const std::exception& error) {
    fail_step(error.what());
    return;
  }
  if (!take_states(batch)) return;
  ++counts_.n_steps;
  scheduler_.complete();
  // A finished sequence is gone: each is looked at once, those that are not sampled first.
  for (const Sequence* sequence : scheduler_.scheduled()) {
    if (!sequence->wants_tokens && sequence->n_pending() == 0) {
      finish(sequence->id, sequence->pooling ? FinishReason::kStop : FinishReason::kLength);
    }
  }
  for (size_t i = 0; i < sampled.size(); ++i) {
    accept(*generations_.at(scheduler_.sampled()[i]->id), std::move(sampled[i]));
  }
}

/// Gives the step's hidden states to those who pool them. False when they were not there.
bool EngineThread::take_states(const Batch& batch) {
  if (batch.state_rows.empty()) return true;
  const std::span<const float> states = worker_->states();
  const auto dim = static_cast<size_t>(limits_.state_dim);
  if (states.size() != batch.state_rows.size() * dim) {
    fail_step("the worker gave " + std::to_string(states.size()) + " values of hidden states");
    return false;
  }
  size_t seq = 0;
  for (size_t i = 0; i < batch.state_rows.size(); ++i) {
    const int32_t row = batch.state_rows[i];
    while (row >= batch.query_starts[seq + 1])
      ++seq;
    Generation& generation = *generations_.at(scheduler_.scheduled()[seq]->id);
    generation.pooler->add(batch.positions[static_cast<size_t>(row)], states.subspan(i * dim, dim));
  }
  return true;
}

/// Notes who is scheduled for the first time; those no longer count for the limit of the queue.
void EngineThread::mark_scheduled() {
  const auto now = Clock::now();
  int n_first = 0;
  for (const Sequence* sequence : scheduler_.scheduled()) {
    Generation& generation = *generations_.at(sequence->id);
    if (generation.first_scheduled) continue;
    generation.first_scheduled = now;
    counts_.n_prompt_tokens += sequence->n_prompt;
    ++n_first;
  }
  if (n_first == 0) return;
  {
    const std::lock_guard lock(mutex_);
    n_queued_ -= n_first;
  }
  publish();
}

/// Takes one sampled token into its generation.
void EngineThread::accept(Generation& generation, SampledToken sampled) {
  Sequence& sequence = generation.sequence;
  if (sampled.error.empty() && (sampled.token < 0 || sampled.token >= limits_.vocab_size)) {
    sampled.error = "the worker sampled token " + std::to_string(sampled.token) +
                    ", outside the vocabulary of " + std::to_string(limits_.vocab_size);
  }
  if (!sampled.error.empty()) {
    finish(sequence.id, FinishReason::kError, sampled.error);
    return;
  }
  generation.last_token = Clock::now();
  if (!generation.first_token) generation.first_token = generation.last_token;
  const auto& stops = generation.stop_tokens;
  if (std::find(stops.begin(), stops.end(), sampled.token) != stops.end()) {
    finish(sequence.id, FinishReason::kStop);
    return;
  }
  try {
    if (sequence.grammar != nullptr) sequence.grammar->accept(sampled.token);
  } catch (const Error& error) {
    finish(sequence.id, FinishReason::kError, error.what());
    return;
  }
  sequence.mirostat_mu = sampled.mirostat_mu;
  sequence.tokens.push_back(sampled.token);
  ++counts_.n_generated_tokens;
  Event event;
  event.request_id = sequence.id;
  event.token = sampled.token;
  event.logprob = sampled.logprob;
  event.top_logprobs = std::move(sampled.top_logprobs);
  if (!tell(generation, event)) {
    finish(sequence.id, FinishReason::kCancelled);
  } else if (sequence.grammar != nullptr && sequence.grammar->is_finished()) {
    finish(sequence.id, FinishReason::kStop);
  } else if (sequence.n_tokens() >= sequence.max_len) {
    finish(sequence.id, FinishReason::kLength);
  }
}

/// The step was not computed: its requests fail, the others go on if the worker can.
void EngineThread::fail_step(const std::string& reason) {
  spdlog::error("engine: a step failed: {}", reason);
  if (!worker_->alive()) {
    fail_all(reason);
    return;
  }
  std::vector<RequestId> ids;
  for (const Sequence* sequence : scheduler_.scheduled())
    ids.push_back(sequence->id);
  scheduler_.abandon();
  for (const RequestId id : ids)
    finish(id, FinishReason::kError, reason);
}

/// Nothing works any more: every request fails and no other is taken.
void EngineThread::fail_all(const std::string& reason) {
  spdlog::error("engine: stopped: {}", reason);
  failure_ = reason;
  {
    const std::lock_guard lock(mutex_);
    if (closed_.empty()) closed_ = reason;
  }
  finish_all(FinishReason::kError, reason);
  handle_messages();
}

void EngineThread::finish_all(FinishReason reason, const std::string& error) {
  std::vector<RequestId> ids;
  for (const auto& [id, generation] : generations_)
    ids.push_back(id);
  std::sort(ids.begin(), ids.end());
  for (const RequestId id : ids)
    finish(id, reason, error);
}

/// Ends a generation: its blocks are free and stats() shows it before its owner is told.
void EngineThread::finish(RequestId id, FinishReason reason, const std::string& error) {
  const auto found = generations_.find(id);
  assert(found != generations_.end());
  const std::unique_ptr<Generation> generation = std::move(found->second);
  generations_.erase(found);
  Sequence& sequence = generation->sequence;
  scheduler_.remove(&sequence);
  const auto now = Clock::now();
  const auto scheduled = generation->first_scheduled.value_or(now);
  const auto first_token = generation->first_token.value_or(now);
  Event event;
  event.request_id = id;
  event.finished = true;
  event.reason = reason;
  event.error = error;
  if (generation->pooler && reason == FinishReason::kStop) {
    event.pooled = generation->pooler->take(limits_.rank_head.get());
  }
  event.stats.n_prompt_tokens = sequence.n_prompt;
  event.stats.n_cached_tokens = sequence.n_cached;
  event.stats.n_generated_tokens = sequence.n_generated();
  event.stats.queue_ns = nanoseconds(generation->submitted, scheduled);
  event.stats.prefill_ns = nanoseconds(scheduled, first_token);
  if (generation->first_token) {
    event.stats.decode_ns = nanoseconds(first_token, generation->last_token);
  }
  event.stats.seed = sequence.seed;
  if (!generation->first_scheduled) {
    const std::lock_guard lock(mutex_);
    --n_queued_;
  }
  publish();
  tell(*generation, event);
}

/// False when the sink broke its promise not to throw.
bool EngineThread::tell(Generation& generation, const Event& event) {
  try {
    generation.sink(event);
    return true;
  } catch (const std::exception& error) {
    spdlog::error("engine: the sink of request {} threw: {}", event.request_id, error.what());
  } catch (...) {
    spdlog::error("engine: the sink of request {} threw", event.request_id);
  }
  return false;
}

void EngineThread::resolve_breakers(Sequence& sequence) {
  const SamplingParams& params = sequence.sampling;
  if (params.dry_multiplier == 0.0f || params.dry_sequence_breakers.empty()) return;
  auto found = breaker_lists_.find(params.dry_sequence_breakers);
  if (found == breaker_lists_.end()) {
    if (breaker_lists_.size() >= kMaxBreakerLists) breaker_lists_.clear();
    auto breakers = std::make_shared<const DryBreakers>(
        DryBreakers::resolve(params.dry_sequence_breakers, *options_.tokenizer));
    found = breaker_lists_.emplace(params.dry_sequence_breakers, std::move(breakers)).first;
  }
  sequence.dry_breakers = found->second;
}

/// Makes the present counts visible to stats().
void EngineThread::publish() {
  const std::lock_guard lock(mutex_);
  const auto n_in_inbox = std::count_if(inbox_.begin(), inbox_.end(), [](const Message& message) {
    return std::holds_alternative<std::unique_ptr<Generation>>(message);
  });
  stats_.n_running = scheduler_.n_running();
  stats_.n_waiting = scheduler_.n_waiting() + static_cast<int>(n_in_inbox);
  stats_.n_free_kv_blocks = blocks_.n_free();
  stats_.n_steps = counts_.n_steps;
  stats_.n_prompt_tokens = counts_.n_prompt_tokens;
  stats_.n_generated_tokens = counts_.n_generated_tokens;
  stats_.n_preemptions = scheduler_.n_preemptions();
}

void check_positive(const char* name, int64_t value) {
  if (value > 0) return;
  throw Error(std::string(name) + ": " + std::to_string(value) + ", expected at least 1");
}

void check_options(const ModelLimits& limits, const EngineOptions& options) {
  check_positive("max_num_seqs", options.max_num_seqs);
  check_positive("max_num_batched_tokens", options.max_num_batched_tokens);
  check_positive("max_queue", options.max_queue);
  check_positive("the model's vocabulary size", limits.vocab_size);
  check_positive("block_size", limits.block_size);
  check_positive("n_kv_blocks", limits.n_kv_blocks);
  const int64_t n_slots = int64_t{limits.n_kv_blocks} * limits.block_size;
  if (n_slots > std::numeric_limits<int32_t>::max()) {
    throw Error("n_kv_blocks: " + std::to_string(limits.n_kv_blocks) + " blocks of " +
                std::to_string(limits.block_size) + " tokens are more than 2^31 tokens");
  }
  if (effective_max_len(limits, options) < 2) {
    throw Error("max_model_len: a context of " +
                std::to_string(effective_max_len(limits, options)) +
                " tokens has no room for a prompt and an answer");
  }
}

}  // namespace

std::unique_ptr<Engine> make_engine(std::unique_ptr<Worker> worker, const EngineOptions& options) {
  check_options(worker->limits(), options);
  return std::make_unique<EngineThread>(std::move(worker), options);
}

std::unique_ptr<Engine> Engine::load(const gguf::GgufFile& file, const EngineOptions& options) {
  return make_engine(make_worker(file, options), options);
}

}  // namespace dsctl::engine
