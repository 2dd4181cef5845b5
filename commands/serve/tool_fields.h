// The fields of the APIs that are about tools: what the model may call, whether it must, and the
// calls and results in a conversation.
#pragma once

#include <string>
#include <vector>

#include "commands/generation_request.h"
#include "commands/serve/json_fields.h"

namespace dsctl::commands::serve {

/// Reads `tools`, `tool_choice` and `parallel_tool_calls`, alike in OpenAI's and Ollama's API.
/// Throws ApiError 400 naming the field, also when a tool must be called and `request` already has
/// a grammar for the answer.
void parse_tool_fields(const Fields& fields, GenerationRequest& request);

/// The `tool_calls` of an assistant's message; arguments may be an object or a JSON text.
std::vector<templates::ToolCall> parse_tool_calls(const Fields& message);

/// Connects results with their calls: a call without id gets one, a result without id or name those
/// of its call. Templates ask for either.
void link_tool_results(std::vector<templates::Message>& messages);

/// A new call's id.
std::string new_tool_call_id();

}  // namespace dsctl::commands::serve
