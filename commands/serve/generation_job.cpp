#include "commands/serve/generation_job.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "commands/error.h"
#include "commands/structured_output.h"
#include "registry/error.h"
#include "templates/error.h"

namespace dsctl::commands::serve {

using engine::FinishReason;
using engine::SubmitError;

namespace {

// A model whose engine died is started again once for a request; a second death is its answer.
constexpr int kMaxAttempts = 2;

}  // namespace

ApiError submit_error(const engine::SubmitResult& result) {
  switch (*result.error) {
    case SubmitError::kQueueFull:
      return ApiError(503, "server busy, please try again.  maximum pending requests exceeded");
    case SubmitError::kPromptTooLong:
    case SubmitError::kEmptyPrompt:
    case SubmitError::kBadToken:
    case SubmitError::kBadSampling:
    case SubmitError::kBadGrammar:
    case SubmitError::kBadPooling:
      return ApiError(400, result.message);
    case SubmitError::kStopped:
      return ApiError(500, result.message);
  }
  return ApiError(500, result.message);
}

ApiError to_api_error(std::exception_ptr failure) {
  try {
    std::rethrow_exception(std::move(failure));
  } catch (const ApiError& error) {
    return error;
  } catch (const Error& error) {
    return ApiError(400, error.what());
  } catch (const templates::Error& error) {
    return ApiError(400, error.what());
  } catch (const std::exception& error) {
    return ApiError(500, error.what());
  }
}

GenerationJob::GenerationJob(const JobContext& context, GenerationRequest request,
                             std::unique_ptr<AnswerWriter> writer)
    : context_(context), request_(std::move(request)), writer_(std::move(writer)) {}

void GenerationJob::start(const JobContext& context, GenerationRequest request,
                          std::shared_ptr<Exchange> exchange,
                          std::unique_ptr<AnswerWriter> writer) {
  const auto id = context.source.find(request.model);
  if (!id)
    throw ApiError(404, "model '" + request.model + "' not found", "model", "model_not_found");
  const std::shared_ptr<GenerationJob> job(
      new GenerationJob(context, std::move(request), std::move(writer)));
  job->id_ = *id;
  // Weak: the exchange belongs to the writer, which belongs to the job.
  exchange->set_on_close([weak = job->weak_from_this()] {
    if (const auto alive = weak.lock()) alive->cancel();
  });
  job->acquire();
}

void GenerationJob::acquire() {
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

void GenerationJob::on_model(std::shared_ptr<ModelHost::Lease> lease, std::exception_ptr failure) {
  if (failure) {
    // Whatever kept the model from loading, the request itself was fine.
    ApiError error = to_api_error(failure);
    fail(error.status() == 400 ? ApiError(500, error.what()) : error);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    lease_ = std::move(lease);
    summary_.load_time += lease_->load_time();
  }
  try {
    run();
  } catch (const std::exception&) {
    fail(to_api_error(std::current_exception()));
  }
}

void GenerationJob::run() {
  const LoadedModel& model = *lease_->model();
  const GenerationOptions options =
      generation_options(merge_options(model.parameters, request_.options), request_.defaults);
  int limit = lease_->max_model_len();
  if (options.num_ctx) limit = std::min(limit, *options.num_ctx);
  // Outside the lock: rendering may take a while, and the client may leave meanwhile. One place of
  // the context must be left for an answer.
  Prompt prompt = build_prompt(model, request_, limit - 1);
  engine::Request request;
  request.sampling = options.sampling;
  request.sampling.n_logprobs = request_.n_logprobs;
  request.sampling.logit_bias = request_.logit_bias;
  request.max_tokens = options.max_tokens;
  if (options.num_ctx) {
    const int room = *options.num_ctx - static_cast<int>(prompt.tokens.size());
    request.max_tokens = request.max_tokens < 0 ? room : std::min(request.max_tokens, room);
  }
  request.prompt_tokens = prompt.tokens;
  request.grammar = prompt.grammar;
  {
    const std::lock_guard lock(mutex_);
    if (over_) return;
    summary_.n_dropped_messages = prompt.n_dropped_messages;
    summary_.n_prompt_tokens = static_cast<int>(prompt.tokens.size());
    summary_.context = std::move(prompt.tokens);
    answers_.clear();
    for (int i = 0; i < request_.n; ++i) {
      answers_.emplace_back().text = std::make_unique<TextStream>(
          *model.tokenizer, options.stop, prompt.thinking,
          request_.n_logprobs >= 0 ? LogprobsWanted::kYes : LogprobsWanted::kNo, prompt.tools);
    }
  }
  if (!submit_all(request)) return;
  const std::lock_guard lock(mutex_);
  submitted_ = true;
  if (over_) cancel_engine_requests();
  finish_if_done();
}

// Submits every answer; false when the job goes on elsewhere or has failed.
bool GenerationJob::submit_all(const engine::Request& request) {
  for (int i = 0; i < request_.n; ++i) {
    engine::Request one = request;
    if (one.sampling.seed && i > 0) *one.sampling.seed += static_cast<uint64_t>(i);
    const engine::SubmitResult result = lease_->engine().submit(
        std::move(one),
        [self = shared_from_this(), i](const engine::Event& event) { self->on_event(i, event); });
    if (result.error == SubmitError::kStopped) lease_->report_broken();
    if (result.error == SubmitError::kStopped && i == 0 && n_attempts_ < kMaxAttempts) {
      spdlog::warn("{}: {}; starting its engine again", id_.name, result.message);
      {
        const std::lock_guard lock(mutex_);
        lease_.reset();
      }
      acquire();
      return false;
    }
    if (result.error) {
      fail(submit_error(result));
      return false;
    }
    const std::lock_guard lock(mutex_);
    answers_[static_cast<size_t>(i)].request_id = result.request_id;
    if (!over_) begin_once();
  }
  return true;
}

// An engine may be faster than the return from submit(), so whoever comes first begins.
void GenerationJob::begin_once() {
  if (begun_) return;
  begun_ = true;
  writer_->begin(summary_);
  if (!request_.echo) return;
  for (int i = 0; i < request_.n; ++i)
    writer_->piece(i,
                   {.content = request_.prompt, .thinking = {}, .logprobs = {}, .tool_calls = {}});
}

void GenerationJob::on_event(int index, const engine::Event& event) {
  const std::lock_guard lock(mutex_);
  Answer& answer = answers_[static_cast<size_t>(index)];
  if (event.finished) {
    on_end(answer, index, event);
    return;
  }
  if (over_ || answer.text->stopped()) return;
  begin_once();
  ++summary_.n_generated_tokens;
  for (const TextPiece& piece : answer.text->push(event))
    writer_->piece(index, piece);
  if (answer.text->stopped()) {
    answer.cancelled_by_us = true;
    lease_->engine().cancel(event.request_id);
  }
}

void GenerationJob::on_end(Answer& answer, int index, const engine::Event& event) {
  answer.ended = true;
  ++n_ended_;
  if (!over_ && event.reason == FinishReason::kError) {
    over_ = true;
    writer_->fail(ApiError(500, event.error));
    cancel_engine_requests();
  }
  if (!over_ && event.reason == FinishReason::kCancelled && !answer.cancelled_by_us) {
    over_ = true;
    writer_->fail(ApiError(503, "the model was unloaded before the answer was complete"));
    cancel_engine_requests();
  }
  if (!over_) {
    begin_once();
    for (const TextPiece& rest : answer.text->finish())
      writer_->piece(index, rest);
    writer_->end_answer(index,
                        {.reason = answer.text->stopped() ? FinishReason::kStop : event.reason,
                         .stop_string = answer.text->stop_string(),
                         .n_tool_calls = answer.text->n_tool_calls()});
  }
  summary_.n_prompt_tokens = event.stats.n_prompt_tokens;
  summary_.n_cached_tokens = std::max(summary_.n_cached_tokens, event.stats.n_cached_tokens);
  summary_.prefill_time =
      std::max(summary_.prefill_time, std::chrono::nanoseconds(event.stats.prefill_ns));
  summary_.decode_time =
      std::max(summary_.decode_time, std::chrono::nanoseconds(event.stats.decode_ns));
  if (index == 0) summary_.seed = event.stats.seed;
  finish_if_done();
}

void GenerationJob::finish_if_done() {
  if (!submitted_ || n_ended_ < static_cast<int>(answers_.size())) return;
  if (!over_) {
    over_ = true;
    summary_.total_time = std::chrono::steady_clock::now() - begin_;
    const std::vector<int32_t>& tokens = answers_.front().text->tokens();
    summary_.context.insert(summary_.context.end(), tokens.begin(), tokens.end());
    writer_->finish(summary_);
  }
  release();
}

void GenerationJob::fail(const ApiError& error) {
  const std::lock_guard lock(mutex_);
  if (!over_) {
    over_ = true;
    writer_->fail(error);
  }
  submitted_ = true;
  cancel_engine_requests();
  if (std::all_of(answers_.begin(), answers_.end(),
                  [](const Answer& answer) { return answer.ended || !answer.request_id; })) {
    release();
  }
}

void GenerationJob::cancel() {
  const std::lock_guard lock(mutex_);
  if (over_) return;
  over_ = true;
  cancel_engine_requests();
  if (!lease_) release();
}

void GenerationJob::cancel_engine_requests() {
  if (!lease_) return;
  for (const Answer& answer : answers_) {
    if (answer.request_id && !answer.ended) lease_->engine().cancel(*answer.request_id);
  }
}

// The writer holds the exchange: dropping it tells the connection that nothing more will come.
void GenerationJob::release() {
  writer_.reset();
  lease_.reset();
}

}  // namespace dsctl::commands::serve
