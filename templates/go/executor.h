// Runs a parsed Go template over data, bounded in steps, output and depth.
#pragma once

#include <cstddef>
#include <string>

#include "templates/go/ast.h"
#include "templates/go/functions.h"

namespace dsctl::templates::go {

/// What a run may cost. A template beyond it fails with an Error that names the limit.
struct Limits {
  size_t max_steps = 10'000'000;  // nodes and operands evaluated
  size_t max_output_bytes = 64u << 20;
  int max_template_depth = 100;  // {{template}} within {{template}}
};

/// The text that the template `tree` makes of `data`. Throws Error with line and column.
std::string execute(const Tree& tree, const FunctionMap& functions, const Value& data,
                    const Limits& limits = {});

/// The same, for `root` in place of the tree's main template.
std::string execute(const Tree& tree, const NodeList& root, const FunctionMap& functions,
                    const Value& data, const Limits& limits = {});

}  // namespace dsctl::templates::go
