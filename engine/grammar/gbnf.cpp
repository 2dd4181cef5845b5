#include "engine/grammar/gbnf.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace dsctl::engine::grammar {
namespace {

constexpr size_t kMaxBytes = 1 << 20;
constexpr int kMaxDepth = 200;
constexpr int kMaxRepetitions = 100'000;

bool is_name_char(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

int hex_digit(char32_t c) {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a') + 10;
  if (c >= 'A' && c <= 'F') return static_cast<int>(c - 'A') + 10;
  return -1;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(decode_utf8(text)) {}

  Syntax parse() {
    skip_space(/*across_lines=*/true);
    while (!at_end())
      parse_rule();
    for (size_t i = 0; i < syntax_.rules.size(); ++i) {
      if (!is_defined_[i]) {
        fail_at(first_use_[i], "rule \"" + syntax_.rules[i].name + "\" is not defined");
      }
    }
    const auto root = rule_idxs_.find("root");
    if (root == rule_idxs_.end()) {
      throw Error("grammar: there is no rule \"root\", with which every grammar begins");
    }
    syntax_.root_idx = root->second;
    return std::move(syntax_);
  }

 private:
  bool at_end() const { return pos_ >= text_.size(); }
  char32_t peek(size_t ahead = 0) const {
    return pos_ + ahead < text_.size() ? text_[pos_ + ahead] : 0;
  }
  bool take(char32_t c) {
    if (at_end() || text_[pos_] != c) return false;
    ++pos_;
    return true;
  }

  [[noreturn]] void fail(const std::string& what) const { fail_at(pos_, what); }
  [[noreturn]] void fail_at(size_t pos, const std::string& what) const {
    size_t line = 1;
    size_t column = 1;
    for (size_t i = 0; i < std::min(pos, text_.size()); ++i) {
      const bool newline = text_[i] == '\n';
      line += newline ? 1 : 0;
      column = newline ? 1 : column + 1;
    }
    throw Error("grammar: line " + std::to_string(line) + ", column " + std::to_string(column) +
                ": " + what);
  }
  std::string found() const {
    if (at_end()) return "the end";
    return peek() == '\n' ? "the end of the line" : "\"" + encode_utf8(peek()) + "\"";
  }

  void skip_space(bool across_lines) {
    for (; !at_end(); ++pos_) {
      const char32_t c = peek();
      if (c == '#') {
        while (!at_end() && peek() != '\n')
          ++pos_;
        if (at_end()) return;
      }
      const bool newline = peek() == '\n' || peek() == '\r';
      if (newline && !across_lines) return;
      if (!newline && peek() != ' ' && peek() != '\t') return;
    }
  }

  std::string parse_name() {
    std::string name;
    while (!at_end() && is_name_char(peek()))
      name += static_cast<char>(text_[pos_++]);
    if (name.empty()) fail("found " + found() + ", expected the name of a rule");
    return name;
  }

  int rule_idx(const std::string& name, size_t pos) {
    const auto [it, is_new] = rule_idxs_.emplace(name, static_cast<int>(syntax_.rules.size()));
    if (is_new) {
      syntax_.rules.push_back({.name = name, .body = {}});
      is_defined_.push_back(false);
      first_use_.push_back(pos);
    }
    return it->second;
  }

  void parse_rule() {
    const size_t begin = pos_;
    const std::string name = parse_name();
    skip_space(false);
    if (!(peek() == ':' && peek(1) == ':' && peek(2) == '=')) {
      fail("found " + found() + ", expected \"::=\" after the name \"" + name + "\"");
    }
    pos_ += 3;
    skip_space(true);
    const auto idx = static_cast<size_t>(rule_idx(name, begin));
    if (is_defined_[idx]) fail_at(begin, "rule \"" + name + "\" is defined twice");
    Expr body = parse_choice(0);
    syntax_.rules[idx].body = std::move(body);
    is_defined_[idx] = true;
    if (!at_end() && peek() != '\n' && peek() != '\r') {
      fail("found " + found() + ", expected the end of the line or \"|\"");
    }
    skip_space(true);
  }

  Expr parse_choice(int depth) {
    if (depth > kMaxDepth) fail("more than " + std::to_string(kMaxDepth) + " nested parentheses");
    std::vector<Expr> alternatives;
    alternatives.push_back(parse_sequence(depth));
    while (take('|')) {
      skip_space(true);
      alternatives.push_back(parse_sequence(depth));
    }
    return choice(std::move(alternatives));
  }

  Expr parse_sequence(int depth) {
    std::vector<Expr> parts;
    for (;;) {
      const char32_t c = peek();
      if (at_end() || c == '|' || c == ')' || (depth == 0 && (c == '\n' || c == '\r'))) break;
      if (c == '*' || c == '+' || c == '?' || c == '{') {
        if (parts.empty()) fail("found " + found() + " with nothing before it to repeat");
        parts.back() = parse_postfix(std::move(parts.back()));
      } else {
        parts.push_back(parse_item(depth));
      }
      skip_space(depth > 0);
    }
    return sequence(std::move(parts));
  }

  Expr parse_item(int depth) {
    const char32_t c = peek();
    if (c == '"') return parse_literal();
    if (c == '[') return parse_class();
    if (c == '.') {
      ++pos_;
      return chars(complement({}));
    }
    if (c == '(') {
      ++pos_;
      skip_space(true);
      Expr group = parse_choice(depth + 1);
      if (!take(')')) fail("found " + found() + ", expected \")\"");
      return group;
    }
    if (c == '<' || c == '!') fail("elements that name a token (<...>) are not supported");
    const size_t begin = pos_;
    if (!is_name_char(c)) {
      fail("found " + found() + ", expected a literal, a class, a group or the name of a rule");
    }
    return rule(rule_idx(parse_name(), begin));
  }

  Expr parse_literal() {
    const size_t begin = pos_++;
    std::u32string text;
    while (!take('"')) {
      if (at_end() || peek() == '\n') fail_at(begin, "a literal without its closing quote");
      text += parse_char();
    }
    return literal(std::u32string_view(text));
  }

  Expr parse_class() {
    const size_t begin = pos_++;
    const bool negated = take('^');
    CharSet set;
    while (!take(']')) {
      if (at_end() || peek() == '\n') fail_at(begin, "a class without its closing \"]\"");
      const char32_t first = parse_char();
      char32_t last = first;
      if (peek() == '-' && peek(1) != ']') {
        ++pos_;
        if (at_end()) fail_at(begin, "a class without its closing \"]\"");
        last = parse_char();
        if (last < first) fail("a range whose end is before its beginning");
      }
      set.push_back({first, last});
    }
    set = normalized(std::move(set));
    return chars(negated ? complement(set) : std::move(set));
  }

  char32_t parse_char() {
    const char32_t c = text_[pos_++];
    if (c != '\\') return c;
    if (at_end()) fail("a backslash with nothing after it");
    const char32_t escaped = text_[pos_++];
    switch (escaped) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case '"':
      case '\\':
      case '[':
      case ']':
      case '-':
      case '^':
        return escaped;
      case 'x':
        return parse_hex(2);
      case 'u':
        return parse_hex(4);
      case 'U':
        return parse_hex(8);
      default:
        --pos_;
        fail("unknown escape \"\\" + encode_utf8(escaped) + "\"");
    }
  }

  char32_t parse_hex(int n_digits) {
    char32_t value = 0;
    for (int i = 0; i < n_digits; ++i) {
      const int digit = hex_digit(peek());
      if (digit < 0) {
        fail("found " + found() + ", expected " + std::to_string(n_digits) + " hex digits");
      }
      value = value * 16 + static_cast<char32_t>(digit);
      ++pos_;
    }
    if (value > kLastCodePoint) fail("a code point beyond U+10FFFF");
    return value;
  }

  int parse_count() {
    int value = 0;
    const size_t begin = pos_;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<int>(peek() - '0');
      if (value > kMaxRepetitions) {
        fail("more than " + std::to_string(kMaxRepetitions) + " repetitions");
      }
      ++pos_;
    }
    if (pos_ == begin) fail("found " + found() + ", expected a number of repetitions");
    return value;
  }

  Expr parse_postfix(Expr item) {
    const char32_t c = text_[pos_++];
    if (c == '*') return repeat(std::move(item), 0);
    if (c == '+') return repeat(std::move(item), 1);
    if (c == '?') return optional(std::move(item));
    skip_space(false);
    const int min = peek() == ',' ? 0 : parse_count();
    int max = min;
    skip_space(false);
    if (take(',')) {
      skip_space(false);
      max = peek() == '}' ? Expr::kUnbounded : parse_count();
      skip_space(false);
    }
    if (!take('}')) fail("found " + found() + ", expected \"}\"");
    if (max != Expr::kUnbounded && max < min)
      fail("a repetition whose maximum is under its minimum");
    return repeat(std::move(item), min, max);
  }

  std::u32string text_;
  size_t pos_ = 0;
  Syntax syntax_;
  std::map<std::string, int> rule_idxs_;
  std::vector<bool> is_defined_;
  std::vector<size_t> first_use_;
};

}  // namespace

Syntax parse_gbnf(std::string_view text) {
  if (text.size() > kMaxBytes) {
    throw Error("grammar: " + std::to_string(text.size()) + " bytes, at most " +
                std::to_string(kMaxBytes) + " are allowed");
  }
  return Parser(text).parse();
}

}  // namespace dsctl::engine::grammar
