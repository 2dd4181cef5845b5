// What a caller asks of the engine and what comes back: sampling parameters, a request, its events.
// Plain values: they cross threads and, in the server, a process boundary.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace dsctl::engine {

/// How the next token is chosen; meanings, order and defaults as Ollama and llama.cpp have them
/// (the defaults below are Ollama's). A value that switches a sampler off is named beside it.
struct SamplingParams {
  float temperature = 0.8f;      // <= 0: greedy, whatever the truncating samplers say
  int top_k = 40;                // <= 0: off
  float top_p = 0.9f;            // 1: off
  float min_p = 0.0f;            // 0: off
  float typical_p = 1.0f;        // 1: off
  float top_n_sigma = -1.0f;     // <= 0: off
  float xtc_probability = 0.0f;  // 0: off
  float xtc_threshold = 0.1f;
  float dynatemp_range = 0.0f;  // 0: off
  float dynatemp_exponent = 1.0f;
  int repeat_last_n = 64;       // 0: off, -1: the whole context
  float repeat_penalty = 1.0f;  // 1: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  /// Whether presence and frequency count the prompt's tokens of the window as well: llama.cpp
  /// does, OpenAI and vLLM count the output only. The repeat penalty always counts both.
  bool penalize_prompt = true;
  float dry_multiplier = 0.0f;  // 0: off
  float dry_base = 1.75f;
  int dry_allowed_length = 2;
  int dry_last_n = -1;  // -1: the whole context
  std::vector<std::string> dry_sequence_breakers{"\n", ":", "\"", "*"};
  int mirostat = 0;  // 0: off, 1, 2
  float mirostat_tau = 5.0f;
  float mirostat_eta = 0.1f;
  std::optional<uint64_t> seed;  // absent: drawn at submit and reported in the result
  std::vector<std::pair<int32_t, float>> logit_bias;  // (token id, addend); -inf bans
  /// Log-probabilities wanted per token: -1 none, 0 the chosen token's, n the n best as well. They
  /// are of the model's own distribution, before any sampler.
  int n_logprobs = -1;
  int min_tokens = 0;       // end-of-generation and stop tokens are banned before so many
  bool ignore_eos = false;  // the model's end-of-generation tokens are banned throughout
};

/// What a generation's text must look like; tokens that would break it are never chosen.
struct GrammarSpec {
  enum class Kind {
    kGbnf,        // llama.cpp's notation
    kJsonSchema,  // a JSON schema
    kJsonObject,  // any JSON object; no source
    kRegex,       // a regular expression that the whole text matches
    kChoice,      // one of a JSON list of strings
    kTagged,      // JSON of schemas between fixed texts: see engine/grammar/tagged.h
  };
  Kind kind = Kind::kGbnf;
  std::string source;
  /// Text after which the constraint begins (the end of a model's thinking), or empty. White space
  /// may come first there.
  std::string start_after;
  /// With start_after: the text that the part before it begins with, or empty when that part is
  /// certain. A generation that does not begin with it is constrained from its start.
  std::string may_begin_with;
  /// The constraint begins with the first of these texts to be generated, which belong to it;
  /// empty: at once. Without any of them the generation is free.
  std::vector<std::string> triggers;
  /// Texts that may also be written as the control tokens of the same text, which otherwise never
  /// come in constrained text.
  std::vector<std::string> control_tokens;
};

/// What a request that wants no generation gets of its prompt's hidden states, (dim) each.
enum class Pooling {
  kTokens,  // every token's: (n_prompt, dim)
  kMean,    // their mean: (dim)
  kFirst,   // the first token's, as of [CLS]: (dim)
  kLast,    // the last token's: (dim)
  kRank,    // the scores that the model's classifier gives the last one: (n_labels)
};

using RequestId = uint64_t;

/// One generation, or with `pooling` what the model makes of a prompt.
struct Request {
  std::vector<int32_t> prompt_tokens;  // at least one
  /// Tokens to generate; negative: until the context is full. 0 only computes the prompt (and
  /// leaves it in the prefix cache).
  int max_tokens = -1;
  SamplingParams sampling;
  /// End the generation besides the model's own end-of-generation tokens; like those they are
  /// neither emitted nor counted.
  std::vector<int32_t> stop_token_ids;
  std::optional<GrammarSpec> grammar;
  /// Instead of a generation: nothing is sampled, the prompt may fill the context, and the finish
  /// has Event::pooled. What is said above of tokens has no meaning then.
  std::optional<Pooling> pooling;
};

enum class FinishReason { kStop, kLength, kCancelled, kError };

struct TokenLogprob {
  int32_t token = 0;
  float logprob = 0.0f;  // natural logarithm
};

/// Times and counts of one request; times in nanoseconds.
struct RequestStats {
  int n_prompt_tokens = 0;
  int n_cached_tokens = 0;     // of the prompt, found in the prefix cache
  int n_generated_tokens = 0;  // the end-of-generation token not counted
  int64_t queue_ns = 0;        // submit to first scheduled
  int64_t prefill_ns = 0;      // first scheduled to first token (or to the end without one)
  int64_t decode_ns = 0;       // first token to last
  uint64_t seed = 0;
};

/// What a request's owner is told, in order: tokens, then exactly one finish.
struct Event {
  RequestId request_id = 0;
  bool finished = false;
  // A token (finished is false).
  int32_t token = 0;
  float logprob = 0.0f;                    // when n_logprobs >= 0
  std::vector<TokenLogprob> top_logprobs;  // best first, ties by id
  // The end (finished is true).
  FinishReason reason = FinishReason::kStop;
  std::string error;          // kError only
  std::vector<float> pooled;  // kStop of a request with pooling: row-major f32, not normalised
  RequestStats stats;
};

/// Called on the engine's thread, in order, once for each event of one request. Must not block and
/// must not throw; one that throws gets its request cancelled.
using EventSink = std::function<void(const Event&)>;

}  // namespace dsctl::engine
