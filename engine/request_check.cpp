#include "engine/request_check.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <span>
#include <string>

namespace dsctl::engine {
namespace {

constexpr size_t kMaxBreakers = 128;  // each costs a pass over the vocabulary

std::optional<Refusal> bad_sampling(std::string message) {
  return Refusal{.error = SubmitError::kBadSampling, .message = std::move(message)};
}

std::optional<Refusal> check_token(int32_t token, const char* where, const RequestLimits& limits) {
  if (token >= 0 && token < limits.vocab_size) return std::nullopt;
  return Refusal{.error = SubmitError::kBadToken,
                 .message = std::string(where) + ": token " + std::to_string(token) +
                            " is outside the vocabulary of " + std::to_string(limits.vocab_size)};
}

std::optional<Refusal> check_prompt(const Request& request, const RequestLimits& limits) {
  const auto& prompt = request.prompt_tokens;
  if (prompt.empty()) {
    return Refusal{.error = SubmitError::kEmptyPrompt,
                   .message = "the prompt has no tokens, at least one is needed"};
  }
  if (request.pooling && prompt.size() > static_cast<size_t>(limits.max_model_len)) {
    return Refusal{.error = SubmitError::kPromptTooLong,
                   .message = "the input has " + std::to_string(prompt.size()) +
                              " tokens, more than the context of " +
                              std::to_string(limits.max_model_len)};
  }
  if (!request.pooling && prompt.size() >= static_cast<size_t>(limits.max_model_len)) {
    return Refusal{.error = SubmitError::kPromptTooLong,
                   .message = "the prompt has " + std::to_string(prompt.size()) +
                              " tokens, but the context of " +
                              std::to_string(limits.max_model_len) + " leaves room for " +
                              std::to_string(limits.max_model_len - 1) +
                              "; shorten it or load the model with a larger context"};
  }
  for (const int32_t token : prompt) {
    if (auto refusal = check_token(token, "prompt", limits)) return refusal;
  }
  for (const int32_t token : request.stop_token_ids) {
    if (auto refusal = check_token(token, "stop_token_ids", limits)) return refusal;
  }
  return std::nullopt;
}

/// Values that are no numbers, and those that a formula can't take.
std::optional<Refusal> check_numbers(const SamplingParams& params) {
  constexpr float kMax = std::numeric_limits<float>::max();
  constexpr float kTiny = std::numeric_limits<float>::min();
  struct Range {
    const char* name;
    float value;
    float least;
  };
  const std::array ranges{
      Range{"temperature", params.temperature, -kMax},
      Range{"top_p", params.top_p, -kMax},
      Range{"min_p", params.min_p, -kMax},
      Range{"typical_p", params.typical_p, -kMax},
      Range{"top_n_sigma", params.top_n_sigma, -kMax},
      Range{"xtc_probability", params.xtc_probability, -kMax},
      Range{"xtc_threshold", params.xtc_threshold, -kMax},
      Range{"dynatemp_range", params.dynatemp_range, -kMax},
      Range{"dynatemp_exponent", params.dynatemp_exponent, 0.0f},
      Range{"repeat_penalty", params.repeat_penalty, kTiny},
      Range{"presence_penalty", params.presence_penalty, -kMax},
      Range{"frequency_penalty", params.frequency_penalty, -kMax},
      Range{"dry_multiplier", params.dry_multiplier, -kMax},
      Range{"dry_base", params.dry_base, -kMax},
      Range{"dry_allowed_length", static_cast<float>(params.dry_allowed_length), 0.0f},
      Range{"dry_last_n", static_cast<float>(params.dry_last_n), -1.0f},
      Range{"repeat_last_n", static_cast<float>(params.repeat_last_n), -1.0f},
      Range{"mirostat_tau", params.mirostat_tau, -kMax},
      Range{"mirostat_eta", params.mirostat_eta, -kMax},
      Range{"min_tokens", static_cast<float>(params.min_tokens), 0.0f},
      Range{"n_logprobs", static_cast<float>(params.n_logprobs), -1.0f},
  };
  for (const Range& range : ranges) {
    if (range.value >= range.least && range.value <= kMax) continue;  // false for NaN
    std::string wanted = "a finite number";
    if (range.least == kTiny) wanted = "a number above 0";
    if (range.least == 0.0f || range.least == -1.0f) {
      wanted = "a number from " + std::to_string(static_cast<int>(range.least));
    }
    return bad_sampling(std::string(range.name) + ": " + std::to_string(range.value) +
                        ", expected " + wanted);
  }
  return std::nullopt;
}

std::optional<Refusal> check_sampling(const SamplingParams& params, const RequestLimits& limits) {
  if (auto refusal = check_numbers(params)) return refusal;
  if (params.mirostat < 0 || params.mirostat > 2) {
    return bad_sampling("mirostat: " + std::to_string(params.mirostat) + ", expected 0, 1 or 2");
  }
  if (params.n_logprobs > limits.vocab_size) {
    return bad_sampling("n_logprobs: " + std::to_string(params.n_logprobs) +
                        ", but the vocabulary has " + std::to_string(limits.vocab_size) +
                        " tokens");
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (auto refusal = check_token(token, "logit_bias", limits)) return refusal;
    if (std::isnan(bias) || bias == std::numeric_limits<float>::infinity()) {
      return bad_sampling("logit_bias: " + std::to_string(bias) + " for token " +
                          std::to_string(token) + ", expected a finite number or -infinity");
    }
  }
  if (params.dry_multiplier != 0.0f && !params.dry_sequence_breakers.empty()) {
    if (!limits.has_tokenizer) {
      return bad_sampling(
          "dry_sequence_breakers: this engine was loaded without a tokenizer; leave them empty");
    }
    if (params.dry_sequence_breakers.size() > kMaxBreakers) {
      return bad_sampling(
          "dry_sequence_breakers: " + std::to_string(params.dry_sequence_breakers.size()) +
          " strings, at most " + std::to_string(kMaxBreakers) + " are allowed");
    }
  }
  return std::nullopt;
}

std::optional<Refusal> check_pooling(const Request& request, const RequestLimits& limits) {
  const auto refuse = [](std::string message) {
    return Refusal{.error = SubmitError::kBadPooling, .message = std::move(message)};
  };
  if (!limits.gives_states) return refuse("embeddings are not supported on this device");
  if (request.grammar) return refuse("a grammar, but nothing is generated");
  if (*request.pooling == Pooling::kRank && !limits.has_rank_head) {
    return refuse("this model has no classifier; reranking needs a model with cls.output.weight");
  }
  return std::nullopt;
}

}  // namespace

std::optional<Refusal> check_request(const Request& request, const RequestLimits& limits) {
  if (auto refusal = check_prompt(request, limits)) return refusal;
  if (request.pooling) return check_pooling(request, limits);
  return check_sampling(request.sampling, limits);
}

}  // namespace dsctl::engine
