// Requests of both APIs and messages of an engine process: whatever the bytes are, they are read or
// refused with the error of their border, nothing else.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "commands/serve/api_anthropic.h"
#include "commands/serve/api_embeddings.h"
#include "commands/serve/api_error.h"
#include "commands/serve/api_ollama.h"
#include "commands/serve/api_openai.h"
#include "commands/serve/api_tokens.h"
#include "commands/serve/engine_wire.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace serve = dsctl::commands::serve;
  if (size == 0) return 0;
  const std::string_view body(reinterpret_cast<const char*>(data) + 1, size - 1);
  try {
    switch (data[0] % 14) {
      case 0:
        serve::parse_ollama_generate(body);
        break;
      case 1:
        serve::parse_ollama_chat(body);
        break;
      case 2:
        serve::parse_openai_chat(body);
        break;
      case 3:
        serve::parse_openai_completion(body);
        break;
      case 4:
        serve::decode_message(body);
        break;
      case 5:
        serve::parse_tokenize(body, serve::TokenForm::kVllm);
        break;
      case 6:
        serve::parse_tokenize(body, serve::TokenForm::kOllama);
        break;
      case 7:
        serve::parse_detokenize(body);
        break;
      case 8:
        serve::parse_anthropic_messages(body, serve::AnthropicCall::kMessages);
        break;
      case 10:
        serve::parse_ollama_embed(body);
        break;
      case 11:
        serve::parse_ollama_embeddings(body);
        break;
      case 12:
        serve::parse_openai_embeddings(body);
        break;
      case 13:
        serve::parse_rerank(body);
        break;
      case 9:
        serve::parse_anthropic_messages(body, serve::AnthropicCall::kCountTokens);
        break;
    }
  } catch (const serve::ApiError&) {
  } catch (const serve::WireError&) {
  }
  return 0;
}
