// GenerationJob: the life of one request for text, the same for every API: find the model, wait for
// it, render, tokenise, submit, turn events into text, end. An AnswerWriter gives it the API's
// form.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "commands/generation_request.h"
#include "commands/serve/api_error.h"
#include "commands/serve/http.h"
#include "commands/serve/model_host.h"
#include "commands/serve/worker_pool.h"
#include "commands/text_stream.h"
#include "engine/request.h"

namespace dsctl::commands::serve {

/// One of the n answers, when it is over.
struct AnswerEnd {
  engine::FinishReason reason = engine::FinishReason::kStop;
  std::string stop_string;  // that ended it, if one did
  int n_tool_calls = 0;     // complete ones
};

/// The whole request, when all answers are over. Times are those of the slowest answer.
struct GenerationSummary {
  int n_prompt_tokens = 0;
  int n_cached_tokens = 0;
  int n_generated_tokens = 0;  // of all answers
  std::chrono::nanoseconds total_time{};
  std::chrono::nanoseconds load_time{};
  std::chrono::nanoseconds prefill_time{};
  std::chrono::nanoseconds decode_time{};
  uint64_t seed = 0;  // of the first answer
  int n_dropped_messages = 0;
  std::vector<int32_t> context;  // prompt and first answer
};

/// Writes an answer in the form of one API. Called by one thread at a time; must not block.
class AnswerWriter {
 public:
  virtual ~AnswerWriter() = default;
  /// The prompt was accepted: from here on there is an answer. Of `so_far` only what is known of
  /// the prompt is set.
  virtual void begin(const GenerationSummary& so_far) = 0;
  virtual void piece(int index, const TextPiece& piece) = 0;
  virtual void end_answer(int index, const AnswerEnd& end) = 0;
  virtual void finish(const GenerationSummary& summary) = 0;
  /// Instead of finish(), possibly in the middle of a stream.
  virtual void fail(const ApiError& error) = 0;
};

/// What every job works with.
struct JobContext {
  ModelSource& source;
  ModelHost& host;
  WorkerPool& workers;
};

class GenerationJob : public std::enable_shared_from_this<GenerationJob> {
 public:
  /// Starts `request`, whose answer goes through `writer` to `exchange`; when the client leaves,
  /// the job is cancelled. Throws ApiError when it is refused at once.
  static void start(const JobContext& context, GenerationRequest request,
                    std::shared_ptr<Exchange> exchange, std::unique_ptr<AnswerWriter> writer);

 private:
  struct Answer {
    std::unique_ptr<TextStream> text;
    std::optional<engine::RequestId> request_id;
    bool ended = false;
    bool cancelled_by_us = false;  // a stop string was found: not a cancellation to the client
  };

  GenerationJob(const JobContext& context, GenerationRequest request,
                std::unique_ptr<AnswerWriter> writer);

  void acquire();
  void on_model(std::shared_ptr<ModelHost::Lease> lease, std::exception_ptr failure);
  void run();
  bool submit_all(const engine::Request& request);
  void begin_once();
  void on_event(int index, const engine::Event& event);
  void on_end(Answer& answer, int index, const engine::Event& event);
  void finish_if_done();
  void fail(const ApiError& error);
  void cancel();
  void cancel_engine_requests();
  void release();

  JobContext context_;
  GenerationRequest request_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  std::mutex mutex_;  // everything below; engine events and cancellation meet here
  std::unique_ptr<AnswerWriter> writer_;
  ModelId id_;
  std::shared_ptr<ModelHost::Lease> lease_;
  std::vector<Answer> answers_;
  GenerationSummary summary_;
  int n_ended_ = 0;
  int n_attempts_ = 0;
  bool submitted_ = false;  // all answers: only then the job can be done
  bool begun_ = false;      // the writer's begin() was called
  bool over_ = false;       // finished, failed or cancelled: nothing more is written
};

/// The error that a client shall see for a request that the engine did not take.
ApiError submit_error(const engine::SubmitResult& result);

/// The error that a client shall see for an exception of any folder.
ApiError to_api_error(std::exception_ptr failure);

}  // namespace dsctl::commands::serve
