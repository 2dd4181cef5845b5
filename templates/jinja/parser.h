// From tokens to the syntax tree, by Jinja's grammar.
#pragma once

#include <string_view>

#include "templates/jinja/ast.h"

namespace dsctl::templates::jinja {

constexpr size_t kMaxSourceBytes = 4u << 20;
constexpr int kMaxParseDepth = 100;  // nested brackets, prefixes and statements
constexpr int kMaxTreeDepth = 500;   // of one expression, long chains of operators included

/// Throws JinjaError with the position in its message.
TemplateTree parse_template(std::string_view source);

}  // namespace dsctl::templates::jinja
