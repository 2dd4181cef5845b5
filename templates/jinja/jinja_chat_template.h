// A chat template written in Jinja, as Hugging Face repositories and GGUF files carry them.
#pragma once

#include <memory>
#include <string_view>

#include "templates/chat_template.h"

namespace dsctl::templates {

/// Parses a Jinja chat template; throws Error with line and column.
std::unique_ptr<ChatTemplate> parse_jinja_chat_template(std::string_view source);

}  // namespace dsctl::templates
