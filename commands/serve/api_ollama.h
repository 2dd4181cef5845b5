// Ollama's API: its JSON to and from the internal forms. What generates text goes through
// GenerationJob; what lists and changes models, through the registry.
#pragma once

#include <memory>
#include <string_view>

#include "commands/generation_request.h"
#include "commands/serve/generation_job.h"
#include "commands/serve/router.h"
#include "registry/registry.h"

namespace dsctl::commands::serve {

/// Everything that handlers need; outlives the server.
struct ApiContext {
  JobContext jobs;
  registry::Registry& registry;
};

/// What a body of /api/generate or /api/chat asks for.
struct OllamaGenerate {
  enum class Action { kGenerate, kLoad, kUnload };
  Action action = Action::kGenerate;
  bool chat = false;
  bool stream = true;
  bool render_only = false;  // _debug_render_only
  GenerationRequest request;
};

/// Reads a body; throws ApiError 400 naming the field. Free functions, so that they can be fuzzed.
OllamaGenerate parse_ollama_generate(std::string_view body);
OllamaGenerate parse_ollama_chat(std::string_view body);

/// Adds /api/generate and /api/chat.
void add_ollama_generation(Router& router, const ApiContext& context);

/// Adds /, /health, /api/version, tags, ps, show, delete, copy, create, blobs.
void add_ollama_models(Router& router, const ApiContext& context);

}  // namespace dsctl::commands::serve
