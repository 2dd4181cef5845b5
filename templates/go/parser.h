// Parser of Go's text/template language.
#pragma once

#include <functional>
#include <string_view>

#include "templates/go/ast.h"

namespace dsctl::templates::go {

/// Parses `source`. `is_function` says which identifiers are functions; others are refused. Throws
/// Error with line and column.
Tree parse(std::string_view source, const std::function<bool(std::string_view)>& is_function);

}  // namespace dsctl::templates::go
