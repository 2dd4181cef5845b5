// JSON schemas to grammars: the JSON texts that a schema allows, in the order and spacing in which
// a model is to write them.
#pragma once

#include <string_view>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

/// Reads a JSON schema (a JSON text). Meanings are those of llama.cpp's converter
/// (spec/grammar.md section 3): properties in the schema's order, required ones first; no others
/// unless additionalProperties says so; white space bounded. Throws Error naming the keyword and
/// where it is ("#/properties/age: ...") when the schema can't be followed exactly.
Syntax parse_json_schema(std::string_view schema);

/// Any JSON object.
Syntax json_object_syntax();

}  // namespace dsctl::engine::grammar
