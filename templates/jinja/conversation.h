// The conversation as a template's variables, in the shapes that real templates want.
#pragma once

#include "templates/message.h"

namespace dsctl::templates::jinja {

/// Templates disagree about OpenAI's message form; each flag is one way to meet them.
struct MessageShape {
  bool arguments_as_text = false;    // tool call arguments as JSON text instead of an object
  bool null_content = false;         // none instead of "" beside tool calls
  bool typed_content = false;        // [{"type": "text", "text": ...}] instead of a string
  bool merge_system = false;         // the system message goes into the first user message
  bool undefined_tools = false;      // no `tools` variable instead of none when there are none
  bool functions_text = false;       // tools as JSON text in `functions`, and `datetime`
  bool short_tool_call_ids = false;  // nine letters and digits, as Mistral wants them
};

/// All variables of a render: messages, tools, add_generation_prompt, the tokens, and the rest.
Json conversation_variables(const RenderInput& input, const MessageShape& shape);

}  // namespace dsctl::templates::jinja
