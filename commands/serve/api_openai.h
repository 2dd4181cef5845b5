// OpenAI's API under /v1: its JSON to and from the internal forms, nothing else.
#pragma once

#include <string_view>

#include "commands/serve/api_ollama.h"

namespace dsctl::commands::serve {

struct OpenAiGenerate {
  bool chat = true;
  bool stream = false;
  bool include_usage = false;
  bool include_reasoning = true;
  GenerationRequest request;
};

/// Reads a body; throws ApiError 400 naming the field. Free functions, so that they can be fuzzed.
OpenAiGenerate parse_openai_chat(std::string_view body);
OpenAiGenerate parse_openai_completion(std::string_view body);

/// Adds /v1/models, /v1/models/{id}, /v1/chat/completions, /v1/completions.
void add_openai(Router& router, const ApiContext& context);

}  // namespace dsctl::commands::serve
