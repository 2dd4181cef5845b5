// Load on a server as clients make it: streamed generations, so many at a time or at random
// moments, and what each of them saw. OpenAI's or Ollama's API.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/bench_statistics.h"

namespace dsctl::commands {

enum class ServerApi { kOpenai, kOllama };

struct LoadTarget {
  std::string host;
  int port = 0;
  ServerApi api = ServerApi::kOpenai;
  std::string model;
};

struct LoadPlan {
  int n_requests = 0;
  int n_concurrent = 1;  // at most so many at a time
  int n_prompt_words = 1;
  int n_output_tokens = 1;
  double request_rate = 0;  // requests a second at random moments (Poisson); 0: as soon as possible
  uint64_t seed = 1;
};

/// What one client saw; times in seconds from the sending of its request.
struct RequestOutcome {
  std::string error;  // empty: a whole answer came
  double first_s = 0;
  double end_s = 0;
  std::vector<double> gaps_s;  // between pieces of the answer
  int n_prompt_tokens = 0;
  int n_output_tokens = 0;
};

struct LoadResult {
  std::vector<RequestOutcome> outcomes;  // of the requests that were sent
  double duration_s = 0;                 // from the first sending to the last answer
};

/// Reads a streamed answer line by line.
class AnswerReader {
 public:
  explicit AnswerReader(ServerApi api) : api_(api) {}
  /// One line that came `at_s` after the request.
  void add_line(std::string_view line, double at_s);
  /// The end of the stream.
  RequestOutcome finish(double at_s);

 private:
  void add_openai(std::string_view text, double at_s);
  void add_ollama(std::string_view text, double at_s);
  void add_piece(double at_s);

  const ServerApi api_;
  RequestOutcome outcome_;
  int n_pieces_ = 0;
  double last_s_ = 0;
  bool is_done_ = false;
};

/// `n_words` random words; another seed begins with other words, so that no prefix is shared.
std::string random_prompt(int n_words, uint64_t seed);

/// When each request is sent, in seconds from the start: gaps of an exponential distribution with
/// the mean 1 / rate; all 0 with rate 0.
std::vector<double> arrival_times(int n_requests, double rate, uint64_t seed);

/// One generation. Never throws: what fails is in the outcome.
RequestOutcome run_request(const LoadTarget& target, const std::string& prompt, int n_output_tokens,
                           const std::function<bool()>& interrupted);

/// The first model that the server lists. Throws Error when it can't be reached or has none.
std::string first_model(const LoadTarget& target);

/// Sends the plan's requests. `progress` is told on the caller's thread how many have ended; false
/// stops.
LoadResult run_load(const LoadTarget& target, const LoadPlan& plan,
                    const std::function<bool(int n_done)>& progress);

/// What the outcomes say together. Times in milliseconds, of the whole answers only.
struct LoadSummary {
  int n_ok = 0;
  int n_failed = 0;
  std::string first_error;
  double requests_s = 0;
  double output_tokens_s = 0;
  double total_tokens_s = 0;
  double mean_prompt_tokens = 0;
  double mean_output_tokens = 0;
  Distribution ttft_ms;  // until the first piece of the answer
  Distribution tpot_ms;  // of an answer: a token after the first, on average
  Distribution itl_ms;   // between two pieces
  Distribution e2e_ms;   // until the end
};
LoadSummary summarize_load(const LoadResult& result);

}  // namespace dsctl::commands
