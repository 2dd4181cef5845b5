/// The tokens of a template with a place among them: what a parser asks and expects.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "templates/jinja/jinja_error.h"
#include "templates/jinja/lexer.h"

namespace dsctl::templates::jinja {

using Words = std::initializer_list<std::string_view>;

/// A token as an error message names it.
std::string describe(const Token& token);

class TokenCursor {
 protected:
  /// Throws SyntaxError where the text is no token.
  explicit TokenCursor(const std::string& source) : tokens_(tokenize(source)) {}

  const Token& current() const { return tokens_[pos_]; }
  const Token& look() const { return tokens_[std::min(pos_ + 1, tokens_.size() - 1)]; }
  const Token& next() {
    const Token& token = tokens_[pos_];
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }

  bool is_name(std::string_view name) const {
    return current().type == TokenType::kName && current().text == name;
  }
  bool is_name(Words names) const {
    return current().type == TokenType::kName &&
           std::find(names.begin(), names.end(), current().text) != names.end();
  }
  bool is_op(std::string_view op) const { return is_op(current(), op); }
  static bool is_op(const Token& token, std::string_view op) {
    return token.type == TokenType::kOperator && token.text == op;
  }

  bool skip_name(std::string_view name) {
    if (!is_name(name)) return false;
    next();
    return true;
  }
  bool skip_op(std::string_view op) {
    if (!is_op(op)) return false;
    next();
    return true;
  }

  [[noreturn]] void fail(const std::string& message) const { fail_at(current().offset, message); }
  [[noreturn]] static void fail_at(size_t offset, const std::string& message) {
    throw SyntaxError{offset, message};
  }

  void expect_op(std::string_view op) {
    if (!skip_op(op)) fail("expected '" + std::string(op) + "', got " + describe(current()));
  }
  std::string expect_name() {
    if (current().type != TokenType::kName) fail("expected a name, got " + describe(current()));
    return next().text;
  }
  void expect_type(TokenType type, std::string_view what) {
    if (current().type != type) {
      fail("expected " + std::string(what) + ", got " + describe(current()));
    }
    next();
  }

 private:
  const std::vector<Token> tokens_;
  size_t pos_ = 0;
};

}  // namespace dsctl::templates::jinja
