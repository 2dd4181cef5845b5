// Text to tokens and back, and prompts as templates make them: /api/tokenize, /api/detokenize,
// /api/render, and vLLM's /tokenize and /detokenize. No weights are loaded for them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/serve/api_ollama.h"
#include "commands/serve/text_models.h"

namespace dsctl::commands::serve {

enum class TokenForm { kOllama, kVllm };

struct TokenizeCall {
  GenerationRequest request;  // its model; with `chat` a conversation to be rendered first
  bool chat = false;
  std::string text;
  bool add_special = false;   // BOS and EOS as the vocabulary asks
  bool parse_special = true;  // control tokens in the text are those tokens
  bool wants_pieces = false;  // every token's text as well
};

struct DetokenizeCall {
  std::string model;
  std::vector<int64_t> tokens;
  bool with_special = true;  // control tokens are written out
};

/// Reads a body; throws ApiError 400 naming the field. Free functions, so that they can be fuzzed.
TokenizeCall parse_tokenize(std::string_view body, TokenForm form);
DetokenizeCall parse_detokenize(std::string_view body);
/// A body of /api/chat (it has messages) or of /api/generate.
OllamaGenerate parse_render(std::string_view body);

/// `models` must outlive the server.
void add_token_routes(Router& router, TextModels& models);

}  // namespace dsctl::commands::serve
