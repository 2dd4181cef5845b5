// EmbeddingJob: the life of one request for vectors or scores, the same for every API: find the
// model, wait for it, tokenise, submit, collect, answer.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "commands/serve/generation_job.h"

namespace dsctl::commands::serve {

/// A text, or tokens that go to the model as they are.
struct EmbeddingInput {
  std::string text;
  std::vector<int32_t> tokens;  // instead of text
};

struct EmbeddingRequest {
  std::string model;
  std::vector<EmbeddingInput> inputs;  // of a ranking, the documents; none: the model is loaded
  std::optional<std::string> query;    // a ranking: how well each input answers it
  enum class TooLong { kTruncate, kRefuse };
  TooLong too_long = TooLong::kRefuse;
  Options options;
  std::optional<KeepAlive> keep_alive;
};

struct EmbeddingResult {
  /// Of each input its vector as the model gives it, not normalised; of a ranking its one score.
  std::vector<std::vector<float>> vectors;
  int64_t n_prompt_tokens = 0;
  std::chrono::nanoseconds total_time{};
  std::chrono::nanoseconds load_time{};
};

/// Brings a vector to length 1; one of zeros stays.
void normalize(std::vector<float>& vector);

/// Cuts vectors to their first `n`. Throws ApiError 400 when they have fewer.
void cut_dimensions(EmbeddingResult& result, int64_t n);

class EmbeddingJob : public std::enable_shared_from_this<EmbeddingJob> {
 public:
  /// Makes the answer, on a worker; may throw ApiError.
  using Respond = std::function<HttpResponse(EmbeddingResult&)>;

  /// Starts `request`, whose answer or error in `form` goes to `exchange`; when the client leaves,
  /// the job is cancelled. Throws ApiError when it is refused at once.
  static void start(const JobContext& context, EmbeddingRequest request,
                    std::shared_ptr<Exchange> exchange, ErrorForm form, Respond respond);

 private:
  EmbeddingJob(const JobContext& context, EmbeddingRequest request,
               std::shared_ptr<Exchange> exchange, ErrorForm form, Respond respond);

  void acquire();
  void on_model(std::shared_ptr<ModelHost::Lease> lease, std::exception_ptr failure);
  void run();
  std::vector<int32_t> encode(const LoadedModel& model, size_t input_idx, int limit) const;
  void submit_some();
  bool submit_one(size_t input_idx);
  void on_end(size_t input_idx, const engine::Event& event);
  void finish();
  void fail(const ApiError& error);
  void cancel();
  void end_now();
  void release();

  const JobContext context_;
  const EmbeddingRequest request_;
  const ErrorForm form_;
  const Respond respond_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  std::mutex mutex_;  // everything below; engine events and cancellation meet here
  std::shared_ptr<Exchange> exchange_;
  ModelId id_;
  std::shared_ptr<ModelHost::Lease> lease_;
  engine::Pooling pooling_ = engine::Pooling::kLast;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<std::optional<engine::RequestId>> ids_;  // of those in the engine
  EmbeddingResult result_;
  size_t next_input_ = 0;
  size_t n_done_ = 0;
  int n_running_ = 0;
  int n_attempts_ = 0;
  int n_retries_ = 0;
  bool submitting_ = false;  // somebody is in submit_some, or on the way there
  bool over_ = false;        // answered, failed or cancelled
};

}  // namespace dsctl::commands::serve
