// JSON values between fixed texts: how a tool call is constrained inside its model's markers.
#pragma once

#include <string_view>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

/// Reads the JSON of a list of tagged values:
///   {"open": text, "items": [{"begin": text, "schema": JSON schema, "end": text}, ...],
///    "separator": text, "close": text, "max_items": n}
/// The texts it allows: `open`, then 1 to n values with `separator` between, each one between the
/// texts of one of the items and as its schema says, then `close`. Throws Error naming what is
/// wrong, for a schema as parse_json_schema does, with the item's begin.
Syntax parse_tagged(std::string_view source);

}  // namespace dsctl::engine::grammar
