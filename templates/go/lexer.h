// Lexer of Go's text/template language: text between actions, and the tokens inside {{ }}.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "templates/go/ast.h"

namespace dsctl::templates::go {

struct Token {
  enum class Kind {
    kText,
    kLeft,        // {{
    kRight,       // }}
    kIdentifier,  // also keywords
    kField,       // .name: `text` is the name
    kDot,         // . alone
    kVariable,    // $name: `text` with the $
    kNumber,
    kChar,    // 'a': `text` is the decoded character
    kString,  // `text` is decoded
    kPipe,
    kDeclare,  // :=
    kAssign,   // =
    kComma,
    kLeftParen,
    kRightParen,
    kSpace,
    kEnd,
  };
  Kind kind = Kind::kEnd;
  Position position = 0;
  std::string text;
};

/// Splits `source`, trim markers and comments applied. Throws Error with line and column.
std::vector<Token> tokenize(std::string_view source);

}  // namespace dsctl::templates::go
