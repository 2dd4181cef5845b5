// Regular expressions to syntax trees: for guided_regex and for a JSON schema's `pattern`.
#pragma once

#include <functional>
#include <string_view>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

/// How one character of the described text is written: itself, or as a JSON string writes it.
using CharWriter = std::function<Expr(const CharSet&)>;

/// The texts that `pattern` matches as a whole; "^" at the beginning and "$" at the end may be
/// given. When `is_search`, an end without its anchor may be continued by anything (JSON Schema's
/// meaning). Literals, ".", classes with \d \w \s and ranges, groups, "|", "*", "+", "?", "{m,n}"
/// (also lazy), escapes \n \r \t \f \v \xHH \uHHHH. Throws Error with the column: what can't be
/// described by a grammar of this kind (look-around, back references, word boundaries) or is
/// broken.
Expr parse_regex(std::string_view pattern, const CharWriter& write, bool is_search);

}  // namespace dsctl::engine::grammar
