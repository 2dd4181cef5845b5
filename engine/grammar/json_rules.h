/// The rules of plain JSON, each made on first use: what schemas are put together from.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

class JsonRules {
 protected:
  static constexpr int kMaxDigits = 16;
  static constexpr int kMaxExponentDigits = 2;  // every number fits a double

  int add_rule(std::string name);
  void set_rule(int idx, Expr body);
  int space();
  int string_char();
  static Expr escape();
  Expr token(Expr expr) { return sequence({std::move(expr), rule(space())}); }
  Expr quoted(Expr text);
  static Expr integral_part(int max_digits = kMaxDigits);
  int string();
  int integer();
  int number();
  int boolean();
  int null();
  int value();
  int array();
  int object();
  Expr separated(const Expr& item, int min, int max);
  Expr list_of(const Expr& item, int min, int max);

  /// The rule called `name`, made by `make` on first use. It may use itself.
  template <typename Make>
  int shared(const std::string& name, Make make) {
    const auto known = shared_.find(name);
    if (known != shared_.end()) return known->second;
    const int idx = add_rule(name);
    shared_.emplace(name, idx);
    set_rule(idx, make());
    return idx;
  }

  Syntax syntax_;

 private:
  std::map<std::string, int> shared_;
};

/// One character of a JSON string's text as it is written between the quotes.
Expr json_char(const CharSet& set);

}  // namespace dsctl::engine::grammar
