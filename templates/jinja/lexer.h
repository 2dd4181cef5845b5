// Cuts a Jinja template into text, tags and the words inside tags, white space control included.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "templates/jinja/value.h"

namespace dsctl::templates::jinja {

enum class TokenType {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kInt,
  kFloat,
  kOperator,  // the text says which
  kEnd,
};

struct Token {
  TokenType type = TokenType::kEnd;
  uint32_t offset = 0;  // in the normalised source
  std::string text;     // of a name, string, operator or text between tags
  Int integer = 0;
  double real = 0;
};

/// Line breaks become \n, and one at the very end is dropped, as Jinja does before anything else.
std::string normalise_source(std::string_view source);

/// "template:LINE:COLUMN: " of a byte offset; both count from 1, columns in characters.
std::string position_prefix(std::string_view source, size_t offset);

/// A lexical or syntax error: the offset is where, the message has no position yet.
struct SyntaxError {
  size_t offset;
  std::string message;
};

/// The tokens of a normalised source, ending with kEnd. Throws SyntaxError.
std::vector<Token> tokenize(const std::string& source);

}  // namespace dsctl::templates::jinja
