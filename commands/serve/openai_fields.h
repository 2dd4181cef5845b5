// The fields that OpenAI's endpoints have in common.
#pragma once

#include <cstdint>
#include <limits>
#include <string>

#include "commands/serve/api_openai.h"
#include "commands/serve/json_fields.h"

namespace dsctl::commands::serve {

inline constexpr int64_t kMaxOpenAiInt = std::numeric_limits<int>::max();
inline constexpr int kMaxOpenAiAnswers = 64;
inline constexpr int kMaxOpenAiTopLogprobs = 20;

/// Throws ApiError 400: "WHAT is not supported yet".
[[noreturn]] void openai_not_supported(const std::string& field, const std::string& what);

/// Model, streaming, sampling, stop strings, grammar, keep_alive.
void parse_openai_common(const Fields& fields, OpenAiGenerate& parsed);

/// Sets the option `option` (`name` when null) to the field's value, if there is one.
void set_openai_integer(const Fields& fields, const char* name, int64_t min, int64_t max,
                        GenerationRequest& request, const char* option = nullptr);

}  // namespace dsctl::commands::serve
