// The fields of the APIs that say what an answer must look like.
#pragma once

#include <optional>

#include "commands/serve/json_fields.h"
#include "engine/request.h"

namespace dsctl::commands::serve {

/// Ollama's `format`: "json" or a JSON schema; absent, null and "" mean free text. Throws ApiError
/// 400.
std::optional<engine::GrammarSpec> parse_format_field(const Fields& fields);

/// OpenAI's `response_format`, vLLM's `structured_outputs` and `guided_json`, `guided_regex`,
/// `guided_choice`, `guided_grammar`, llama.cpp's `grammar` and `json_schema`. Throws ApiError 400
/// naming the field, also when there are two of them.
std::optional<engine::GrammarSpec> parse_grammar_fields(const Fields& fields);

}  // namespace dsctl::commands::serve
