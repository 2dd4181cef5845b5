// Tool calls between a request and a model's family: how its answer is read, and how its text is
// constrained when a tool must be called or arguments must obey their schema.
#pragma once

#include <optional>

#include "commands/generation_request.h"
#include "commands/text_stream.h"
#include "engine/request.h"
#include "templates/tool_format.h"

namespace dsctl::commands {

/// How the answer to `request`, which has tools, is read.
ToolCallReading read_tool_calls(const GenerationRequest& request,
                                const templates::ToolFormat& format);

/// What the answer's content must look like: calls of the tools that must be called, with arguments
/// that follow their schemas. When the model may choose, only tools with `strict` ask for a
/// grammar, which begins with the family's marker; nothing when there is no marker to wait for.
std::optional<engine::GrammarSpec> tool_grammar(const GenerationRequest& request,
                                                const templates::ToolFormat& format);

}  // namespace dsctl::commands
