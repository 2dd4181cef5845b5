// GBNF, llama.cpp's grammar notation, as spec/grammar.md section 1 gives it.
#pragma once

#include <string_view>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

/// Reads a grammar; `root` is its start. Throws Error with line and column: bad syntax, a rule that
/// is missing or defined twice, a limit (1 MiB of text, 200 levels of parentheses, repetitions over
/// 100,000).
Syntax parse_gbnf(std::string_view text);

}  // namespace dsctl::engine::grammar
