// Anthropic's API: /v1/messages and /v1/messages/count_tokens, their JSON to and from the internal
// forms.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "commands/serve/api_ollama.h"
#include "commands/serve/text_models.h"

namespace dsctl::commands::serve {

enum class AnthropicCall { kMessages, kCountTokens };

struct AnthropicMessages {
  bool stream = false;
  int64_t max_tokens = 0;
  std::vector<std::string> stop_sequences;  // the request's own, not the model's
  GenerationRequest request;
};

/// Reads a body; throws ApiError 400 naming the field. A free function, so that it can be fuzzed.
AnthropicMessages parse_anthropic_messages(std::string_view body, AnthropicCall call);

/// `models` must outlive the server.
void add_anthropic(Router& router, const ApiContext& context, TextModels& models);

}  // namespace dsctl::commands::serve
