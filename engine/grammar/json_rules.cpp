#include "engine/grammar/json_rules.h"

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace dsctl::engine::grammar {
namespace {

constexpr int kMaxSpaces = 20;

}  // namespace

int JsonRules::add_rule(std::string name) {
  if (syntax_.rules.size() > 100'000) throw Error("JSON schema: too large");
  syntax_.rules.push_back({.name = std::move(name), .body = {}});
  return static_cast<int>(syntax_.rules.size()) - 1;
}

void JsonRules::set_rule(int idx, Expr body) {
  syntax_.rules[static_cast<size_t>(idx)].body = std::move(body);
}

int JsonRules::space() {
  return shared("space", [] {
    return choice(
        {sequence({}), literal(" "),
         sequence({literal("\n"), repeat(chars({{' ', ' '}, {'\t', '\t'}}), 0, kMaxSpaces)})});
  });
}

int JsonRules::string_char() {
  return shared("char", [] {
    const CharSet plain =
        complement(normalized({{0, 0x1F}, {0x7F, 0x7F}, {'"', '"'}, {'\\', '\\'}}));
    return choice({chars(plain), escape()});
  });
}

Expr JsonRules::escape() {
  CharSet letters;
  for (const char c : std::string("\"\\bfnrt"))
    letters.push_back({static_cast<char32_t>(c), static_cast<char32_t>(c)});
  const auto hex = [](int n) { return repeat(chars({{'0', '9'}, {'a', 'f'}, {'A', 'F'}}), n, n); };
  const Expr d = chars({{'d', 'd'}, {'D', 'D'}});
  // Surrogates only in pairs: strict readers refuse others.
  Expr unicode = sequence(
      {literal("u"),
       choice(
           {sequence({chars({{'0', '9'}, {'a', 'c'}, {'e', 'f'}, {'A', 'C'}, {'E', 'F'}}), hex(3)}),
            sequence({d, chars({{'0', '7'}}), hex(2)}),
            sequence({d, chars({{'8', '9'}, {'a', 'b'}, {'A', 'B'}}), hex(2), literal("\\u"), d,
                      chars({{'c', 'f'}, {'C', 'F'}}), hex(2)})})});
  return sequence({literal("\\"), choice({chars(letters), std::move(unicode)})});
}

Expr JsonRules::quoted(Expr text) {
  return token(sequence({literal("\""), std::move(text), literal("\"")}));
}

Expr JsonRules::integral_part(int max_digits) {
  return choice({literal("0"),
                 sequence({chars({{'1', '9'}}), repeat(chars({{'0', '9'}}), 0, max_digits - 1)})});
}

int JsonRules::string() {
  return shared("string", [this] { return quoted(repeat(rule(string_char()), 0)); });
}

int JsonRules::integer() {
  return shared("integer", [this] {
    return token(sequence({optional(literal("-")), integral_part()}));
  });
}

int JsonRules::number() {
  return shared("number", [this] {
    return token(
        sequence({optional(literal("-")), integral_part(),
                  optional(sequence({literal("."), repeat(chars({{'0', '9'}}), 1, kMaxDigits)})),
                  optional(sequence({chars({{'e', 'e'}, {'E', 'E'}}),
                                     optional(chars({{'-', '-'}, {'+', '+'}})),
                                     integral_part(kMaxExponentDigits)}))}));
  });
}

int JsonRules::boolean() {
  return shared("boolean", [this] { return token(choice({literal("true"), literal("false")})); });
}

int JsonRules::null() {
  return shared("null", [this] { return token(literal("null")); });
}

int JsonRules::value() {
  return shared("value", [this] {
    return choice({rule(object()), rule(array()), rule(string()), rule(number()), rule(boolean()),
                   rule(null())});
  });
}

int JsonRules::array() {
  return shared("array", [this] { return list_of(rule(value()), 0, Expr::kUnbounded); });
}

int JsonRules::object() {
  return shared("object", [this] {
    const Expr pair = sequence({rule(string()), token(literal(":")), rule(value())});
    return sequence(
        {token(literal("{")), separated(pair, 0, Expr::kUnbounded), token(literal("}"))});
  });
}

Expr JsonRules::separated(const Expr& item, int min, int max) {
  if (max == 0) return sequence({});
  const Expr rest = repeat(sequence({token(literal(",")), item}), std::max(0, min - 1),
                           max == Expr::kUnbounded ? max : max - 1);
  Expr all = sequence({item, rest});
  return min == 0 ? optional(std::move(all)) : all;
}

Expr JsonRules::list_of(const Expr& item, int min, int max) {
  return sequence({token(literal("[")), separated(item, min, max), token(literal("]"))});
}

Expr json_char(const CharSet& set) {
  // What may stand for itself: not controls, DEL, quote, backslash.
  const CharSet plain = complement(normalized({{0, 0x1F}, {0x7F, 0x7F}, {'"', '"'}, {'\\', '\\'}}));
  std::vector<Expr> ways;
  const CharSet direct = intersection(set, plain);
  if (!direct.empty()) ways.push_back(chars(direct));
  const auto has = [&](char32_t c) { return !intersection(set, {{c, c}}).empty(); };
  constexpr std::array<std::pair<char32_t, char>, 7> kEscapes{
      {{'"', '"'}, {'\\', '\\'}, {'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'}, {'\r', 'r'}, {'\t', 't'}}};
  CharSet letters;
  for (const auto& [c, letter] : kEscapes) {
    if (has(c)) letters.push_back({static_cast<char32_t>(letter), static_cast<char32_t>(letter)});
  }
  if (!letters.empty()) ways.push_back(sequence({literal("\\"), chars(letters)}));
  if (ways.empty()) return chars({});
  return choice(std::move(ways));
}

}  // namespace dsctl::engine::grammar
