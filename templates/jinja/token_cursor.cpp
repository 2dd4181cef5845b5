#include "templates/jinja/token_cursor.h"

namespace dsctl::templates::jinja {

std::string describe(const Token& token) {
  switch (token.type) {
    case TokenType::kText:
      return "template text";
    case TokenType::kVariableBegin:
      return "'{{'";
    case TokenType::kVariableEnd:
      return "end of print statement";
    case TokenType::kBlockBegin:
      return "'{%'";
    case TokenType::kBlockEnd:
      return "end of statement block";
    case TokenType::kEnd:
      return "end of template";
    case TokenType::kString:
      return "a string";
    case TokenType::kName:
    case TokenType::kInt:
    case TokenType::kFloat:
    case TokenType::kOperator:
      return "'" + token.text + "'";
  }
  return "";
}

}  // namespace dsctl::templates::jinja
