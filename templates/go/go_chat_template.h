// A Modelfile's TEMPLATE: Go's text/template with Ollama's rules for what the template is given.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "templates/chat_template.h"

namespace dsctl::templates::go {

/// Days since 1970-01-01 of today, local time; tests give their own.
using Today = std::function<int64_t()>;

/// Parses `source`; throws Error with line and column. A template that mentions neither Messages
/// nor Response gets {{ .Response }} at its end. An undefined or recursive {{template}} is refused.
std::unique_ptr<ChatTemplate> parse_chat_template(std::string_view source, Today today = {});

}  // namespace dsctl::templates::go
