// Structured output: the forms in which people and APIs say what an answer must look like.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "commands/loaded_model.h"
#include "engine/request.h"

namespace dsctl::commands {

/// `--format` and `/set format`: "json", a JSON schema, or the path of a file with one. Throws
/// Error saying what was found.
engine::GrammarSpec parse_format(std::string_view text);

/// A request's grammar as the engine is to follow it: from the end of the model's thinking on.
std::optional<engine::GrammarSpec> grammar_for_engine(
    const std::optional<engine::GrammarSpec>& grammar,
    const std::optional<ThinkingFormat>& thinking);

}  // namespace dsctl::commands
