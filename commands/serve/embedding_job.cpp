#include "commands/serve/embedding_job.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "commands/error.h"

namespace dsctl::commands::serve {

using engine::AddSpecial;
using engine::FinishReason;
using engine::Pooling;
using engine::SpecialTokens;
using engine::SubmitError;

namespace {

// Of one job in the engine: enough to fill its steps, and others get their turn between them.
constexpr int kMaxRunning = 64;
constexpr int kMaxAttempts = 2;
constexpr int kMaxRetries = 200;
constexpr auto kRetryPause = std::chrono::milliseconds(5);

// `text` with the places of query and document filled in, in one pass: what they contain stays.
std::string fill_in(std::string_view text, std::string_view query, std::string_view document) {
  constexpr std::string_view kQuery = "{query}";
  constexpr std::string_view kDocument = "{document}";
  std::string filled;
  while (!text.empty()) {
    if (text.starts_with(kQuery)) {
      filled += query;
      text.remove_prefix(kQuery.size());
    } else if (text.starts_with(kDocument)) {
      filled += document;
      text.remove_prefix(kDocument.size());
    } else {
      filled += text.front();
      text.remove_prefix(1);
    }
  }
  return filled;
}

// Query and document as a reranker was trained to see them.
std::vector<int32_t> encode_pair(const LoadedModel& model, std::string_view query,
                                 std::string_view document) {
  const engine::Tokenizer& tokenizer = *model.tokenizer;
  if (!model.rerank_template.empty()) {
    return tokenizer.encode(fill_in(model.rerank_template, query, document), AddSpecial::kNo,
                            SpecialTokens::kParse);
  }
  std::vector<int32_t> tokens;
  if (tokenizer.adds_bos()) tokens.push_back(tokenizer.bos());
  for (const std::string_view text : {query, document}) {
    const auto part = tokenizer.encode(text, AddSpecial::kNo, SpecialTokens::kAsText);
    tokens.insert(tokens.end(), part.begin(), part.end());
    if (tokenizer.eos() >= 0) tokens.push_back(tokenizer.eos());
  }
  return tokens;
}

void check_purpose(const LoadedModel& model, bool ranking) {
  if (ranking == (model.pooling == Pooling::kRank)) return;
  if (ranking) {
    throw ApiError(400,
                   "\"" + model.name +
                       "\" does not support reranking: that takes a model whose pooling_type is "
                       "rank and that has cls.output.weight, such as Qwen3-Reranker",
                   "model");
  }
  throw ApiError(400,
                 "\"" + model.name +
                     "\" does not support embeddings: it is a reranker, ask "
                     "/v1/rerank",
                 "model");
}

}  // namespace

void normalize(std::vector<float>& vector) {
  double sum = 0.0;
  for (const float value : vector)
    sum += double{value} * double{value};
  if (sum == 0.0) return;
  const double scale = 1.0 / std::sqrt(sum);
  for (float& value : vector)
    value = static_cast<float>(double{value} * scale);
}

void cut_dimensions(EmbeddingResult& result, int64_t n) {
  for (std::vector<float>& vector : result.vectors) {
    if (n > static_cast<int64_t>(vector.size())) {
      throw ApiError(400,
                     "field \"dimensions\": " + std::to_string(n) + ", the model has " +
                         std::to_string(vector.size()),
                     "dimensions");
    }
    vector.resize(static_cast<size_t>(n));
  }
}

EmbeddingJob::EmbeddingJob(const JobContext& context, EmbeddingRequest request,
                           std::shared_ptr<Exchange> exchange, ErrorForm form, Respond respond)
    : context_(context),
      request_(std::move(request)),
      form_(form),
      respond_(std::move(respond)),
      exchange_(std::move(exchange)) {}

void EmbeddingJob::start(const JobContext& context, EmbeddingRequest request,
                         std::shared_ptr<Exchange> exchange, ErrorForm form, Respond respond) {
  const auto id = context.source.find(request.model);
  if (!id)
    throw ApiError(404, "model '" + request.model + "' not found", "model", "model_not_found");
  const std::shared_ptr<EmbeddingJob> job(
      new EmbeddingJob(context, std::move(request), exchange, form, std::move(respond)));
  job->id_ = *id;
  exchange->set_on_close([weak = job->weak_from_this()] {
    if (const auto alive = weak.lock()) alive->cancel();
  });
  job->acquire();
}

void EmbeddingJob::acquire() {
  ++n_attempts_;
  context_.host.acquire(
      id_, load_options(request_.options), request_.keep_alive,
      [self = shared_from_this()](std::shared_ptr<ModelHost::Lease> lease,
                                  std::exception_ptr failure) {
        self->context_.workers.post([self, lease = std::move(lease), failure]() mutable {
          self->on_model(std::move(lease), failure);
        });
      });
}

void EmbeddingJob::on_model(std::shared_ptr<ModelHost::Lease> lease, std::exception_ptr failure) {
  if (failure) {
    // Whatever kept the model from loading, the request itself was fine.
    const ApiError error = to_api_error(failure);
    fail(error.status() == 400 ? ApiError(500, error.what()) : error);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    lease_ = std::move(lease);
    result_.load_time += lease_->load_time();
  }
  try {
    run();
  } catch (const std::exception&) {
    fail(to_api_error(std::current_exception()));
  }
}

void EmbeddingJob::run() {
  // A copy: a client that leaves meanwhile releases the job's own.
  std::shared_ptr<ModelHost::Lease> lease;
  {
    const std::lock_guard lock(mutex_);
    lease = lease_;
  }
  if (!lease) return;
  const LoadedModel& model = *lease->model();
  check_purpose(model, request_.query.has_value());
  int limit = lease->max_model_len();
  if (const auto num_ctx = load_options(request_.options).num_ctx) {
    limit = std::min(limit, *num_ctx);
  }
  std::vector<std::vector<int32_t>> prompts;
  for (size_t i = 0; i < request_.inputs.size(); ++i)
    prompts.push_back(encode(model, i, limit));
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    pooling_ = model.pooling;
    for (const auto& prompt : prompts)
      result_.n_prompt_tokens += static_cast<int64_t>(prompt.size());
    result_.vectors.resize(prompts.size());
    ids_.resize(prompts.size());
    prompts_ = std::move(prompts);
    submitting_ = true;
  }
  if (prompts_.empty()) {
    finish();
    return;
  }
  submit_some();
}

std::vector<int32_t> EmbeddingJob::encode(const LoadedModel& model, size_t input_idx,
                                          int limit) const {
  const engine::Tokenizer& tokenizer = *model.tokenizer;
  const EmbeddingInput& input = request_.inputs[input_idx];
  const std::string field =
      (request_.query ? "documents[" : "input[") + std::to_string(input_idx) + "]";
  std::vector<int32_t> tokens = input.tokens;
  if (request_.query) {
    tokens = encode_pair(model, *request_.query, input.text);
  } else if (tokens.empty()) {
    tokens = tokenizer.encode(input.text, AddSpecial::kYes, SpecialTokens::kParse);
  }
  if (tokens.empty()) throw ApiError(400, "field \"" + field + "\": no tokens", field);
  const auto room = static_cast<size_t>(limit);
  if (tokens.size() <= room) return tokens;
  if (request_.too_long == EmbeddingRequest::TooLong::kRefuse) {
    throw ApiError(400,
                   "field \"" + field + "\": the input length exceeds the context length: " +
                       std::to_string(tokens.size()) + " tokens, expected at most " +
                       std::to_string(limit),
                   field);
  }
  // The end that the vocabulary asks for stays: it is what a last token's state is of.
  const int32_t last = tokens.back();
  tokens.resize(room);
  if (tokenizer.adds_eos() && last == tokenizer.eos()) tokens.back() = last;
  return tokens;
}

// One thread at a time, see submitting_.
void EmbeddingJob::submit_some() {
  for (;;) {
    size_t input_idx = 0;
    {
      const std::lock_guard lock(mutex_);
      if (over_ || next_input_ == prompts_.size() || n_running_ >= kMaxRunning) {
        submitting_ = false;
        return;
      }
      input_idx = next_input_++;
      ++n_running_;
    }
    if (!submit_one(input_idx)) return;
  }
}

// False when nothing more is to be submitted now.
bool EmbeddingJob::submit_one(size_t input_idx) {
  // A copy: the job's own may be released by the last end before submit() has returned.
  std::shared_ptr<ModelHost::Lease> lease;
  {
    const std::lock_guard lock(mutex_);
    lease = lease_;
  }
  engine::Request request;
  request.prompt_tokens = prompts_[input_idx];
  request.max_tokens = 0;
  request.pooling = pooling_;
  const engine::SubmitResult result = lease->engine().submit(
      std::move(request), [self = shared_from_this(), input_idx](const engine::Event& event) {
        if (event.finished) self->on_end(input_idx, event);
      });
  std::unique_lock lock(mutex_);
  if (!result.error) {
    ids_[input_idx] = result.request_id;
    if (over_) lease->engine().cancel(result.request_id);
    return true;
  }
  --n_running_;
  if (result.error == SubmitError::kQueueFull && n_running_ > 0) {
    --next_input_;  // when another of ours has ended
    submitting_ = false;
    return false;
  }
  if (result.error == SubmitError::kQueueFull && n_done_ > 0 && n_retries_ < kMaxRetries) {
    // Others have filled the queue since ours ended. What is done already is worth some patience.
    ++n_retries_;
    --next_input_;
    lock.unlock();
    std::this_thread::sleep_for(kRetryPause);
    return true;
  }
  const bool is_dead = result.error == SubmitError::kStopped;
  if (is_dead) lease->report_broken();
  if (is_dead && !over_ && n_running_ == 0 && n_done_ == 0 && n_attempts_ < kMaxAttempts) {
    spdlog::warn("{}: {}; starting its engine again", id_.name, result.message);
    lease_.reset();
    next_input_ = 0;
    result_.n_prompt_tokens = 0;
    lock.unlock();
    acquire();
    return false;
  }
  lock.unlock();
  fail(submit_error(result));
  return false;
}

void EmbeddingJob::on_end(size_t input_idx, const engine::Event& event) {
  std::unique_lock lock(mutex_);
  --n_running_;
  if (over_) {
    if (n_running_ == 0) release();
    return;
  }
  if (event.reason != FinishReason::kStop) {
    lock.unlock();
    fail(event.reason == FinishReason::kError
             ? ApiError(500, event.error)
             : ApiError(503, "the model was unloaded before the answer was complete"));
    return;
  }
  result_.vectors[input_idx] = event.pooled;
  ++n_done_;
  const auto self = shared_from_this();
  if (n_done_ == prompts_.size()) {
    context_.workers.post([self] { self->finish(); });
  } else if (!submitting_ && next_input_ < prompts_.size() && n_running_ <= kMaxRunning / 2) {
    // Not from here: this may be the thread that must answer submit().
    submitting_ = true;
    context_.workers.post([self] { self->submit_some(); });
  }
}

void EmbeddingJob::finish() {
  const std::lock_guard lock(mutex_);
  if (over_) return;
  over_ = true;
  result_.total_time = std::chrono::steady_clock::now() - begin_;
  try {
    exchange_->respond(respond_(result_));
  } catch (const std::exception&) {
    exchange_->respond(error_response(form_, to_api_error(std::current_exception())));
  }
  release();
}

void EmbeddingJob::fail(const ApiError& error) {
  const std::lock_guard lock(mutex_);
  if (!over_) exchange_->respond(error_response(form_, error));
  end_now();
}

void EmbeddingJob::cancel() {
  const std::lock_guard lock(mutex_);
  end_now();
}

void EmbeddingJob::end_now() {
  over_ = true;
  if (lease_) {
    for (const auto& id : ids_) {
      if (id) lease_->engine().cancel(*id);
    }
  }
  if (n_running_ == 0) release();
}

void EmbeddingJob::release() {
  exchange_.reset();
  lease_.reset();
}

}  // namespace dsctl::commands::serve
