// Vectors and scores: /api/embed and /api/embeddings (Ollama), /v1/embeddings (OpenAI), /v1/rerank
// (Jina and Cohere, as llama-server and vLLM have it).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "commands/serve/api_ollama.h"
#include "commands/serve/embedding_job.h"

namespace dsctl::commands::serve {

struct EmbeddingsCall {
  EmbeddingRequest request;
  std::optional<int64_t> dimensions;
  bool base64 = false;  // OpenAI's encoding_format
};

struct RerankCall {
  EmbeddingRequest request;
  int64_t top_n = 0;  // the best so many
  bool return_documents = false;
};

/// Reads a body; throws ApiError 400 naming the field. Free functions, so that they can be fuzzed.
EmbeddingsCall parse_ollama_embed(std::string_view body);
EmbeddingsCall parse_ollama_embeddings(std::string_view body);
EmbeddingsCall parse_openai_embeddings(std::string_view body);
RerankCall parse_rerank(std::string_view body);

void add_embeddings(Router& router, const ApiContext& context);

}  // namespace dsctl::commands::serve
