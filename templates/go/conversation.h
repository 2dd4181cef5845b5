// A conversation as Ollama hands it to Go templates: its types, with the names they have there.
#pragma once

#include <vector>

#include "templates/go/value.h"
#include "templates/message.h"

namespace dsctl::templates::go {

/// Messages as templates range over them.
Value messages_value(const std::vector<Message>& messages);

/// OpenAI's list of tools; prints as JSON, as a whole and in its parts.
Value tools_value(const Json& tools);

}  // namespace dsctl::templates::go
