#include "engine/grammar/regex_syntax.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/error.h"

namespace dsctl::engine::grammar {
namespace {

constexpr size_t kMaxCodePoints = 64 << 10;
constexpr int kMaxDepth = 100;
constexpr int kMaxRepetitions = 100'000;

CharSet digit_chars() {
  return {{'0', '9'}};
}

CharSet word_chars() {
  return {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
}

CharSet space_chars() {
  return {{'\t', '\r'}, {' ', ' '}, {0xA0, 0xA0}, {0x2028, 0x2029}, {0xFEFF, 0xFEFF}};
}

class Parser {
 public:
  Parser(std::string_view pattern, const CharWriter& write, bool is_search)
      : text_(decode_utf8(pattern)), write_(write), is_search_(is_search) {}

  Expr parse() {
    if (text_.size() > kMaxCodePoints) {
      throw Error("regular expression: longer than " + std::to_string(kMaxCodePoints) +
                  " characters");
    }
    // An anchor at an end of the whole pattern holds for all alternatives, as llama.cpp reads it.
    const bool at_begin = take('^');
    if (!text_.empty() && text_.back() == '$' && !ends_in_escape()) {
      has_end_anchor_ = true;
      text_.pop_back();
    }
    Expr body = parse_choice(0);
    if (pos_ < text_.size()) fail("found \")\" without its \"(\"");
    if (!is_search_) return body;
    std::vector<Expr> parts;
    if (!at_begin) parts.push_back(repeat(write_(complement({})), 0));
    parts.push_back(std::move(body));
    if (!has_end_anchor_) parts.push_back(repeat(write_(complement({})), 0));
    return sequence(std::move(parts));
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
  bool ends_in_escape() const {
    size_t n = 0;
    for (size_t i = text_.size() - 1; i > 0 && text_[i - 1] == '\\'; --i)
      ++n;
    return n % 2 == 1;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Error("regular expression: column " + std::to_string(pos_ + 1) + ": " + what);
  }

  Expr parse_choice(int depth) {
    if (depth > kMaxDepth) fail("more than " + std::to_string(kMaxDepth) + " nested groups");
    std::vector<Expr> ways;
    ways.push_back(parse_sequence(depth));
    while (take('|'))
      ways.push_back(parse_sequence(depth));
    return choice(std::move(ways));
  }

  Expr parse_sequence(int depth) {
    std::vector<Expr> parts;
    while (!at_end() && peek() != '|' && peek() != ')') {
      Expr item = parse_item(depth);
      parts.push_back(parse_quantifiers(std::move(item)));
    }
    return sequence(std::move(parts));
  }

  Expr parse_item(int depth) {
    const char32_t c = peek();
    switch (c) {
      case '(': {
        ++pos_;
        if (take('?')) parse_group_kind();
        Expr group = parse_choice(depth + 1);
        if (!take(')')) fail("a group without its \")\"");
        return group;
      }
      case '[':
        return write_(parse_class());
      case '.':
        ++pos_;
        return write_(complement({{'\n', '\n'}, {'\r', '\r'}}));
      case '*':
      case '+':
      case '?':
        fail("\"" + encode_utf8(c) + "\" with nothing before it to repeat");
      case '^':
      case '$':
        fail("an anchor that is not at the pattern's beginning or end");
      case '\\': {
        if (const auto set = parse_class_escape()) return write_(*set);
        const char32_t escaped = parse_escape();
        return write_({{escaped, escaped}});
      }
      default:
        ++pos_;
        return write_({{c, c}});
    }
  }

  /// After "(?".
  void parse_group_kind() {
    if (take(':')) return;
    if (peek() == 'P' && peek(1) == '<') ++pos_;
    if (peek() == '<' && peek(1) != '=' && peek(1) != '!') {
      while (!at_end() && peek() != '>')
        ++pos_;
      if (!take('>')) fail("a group's name without its \">\"");
      return;
    }
    fail("look-around and inline flags can't be used in a grammar");
  }

  /// \d, \w, \s and their complements; nothing, and nothing taken, when it is another escape.
  std::optional<CharSet> parse_class_escape() {
    CharSet set;
    switch (peek(1)) {
      case 'd':
      case 'D':
        set = digit_chars();
        break;
      case 'w':
      case 'W':
        set = word_chars();
        break;
      case 's':
      case 'S':
        set = space_chars();
        break;
      default:
        return std::nullopt;
    }
    const bool negated = peek(1) < 'a';
    pos_ += 2;
    return negated ? complement(set) : set;
  }

  char32_t parse_escape() {
    ++pos_;
    if (at_end()) fail("a backslash at the end");
    const char32_t c = text_[pos_++];
    switch (c) {
      case 'n':
        return '\n';
      case 'r':
        return '\r';
      case 't':
        return '\t';
      case 'f':
        return '\f';
      case 'v':
        return '\v';
      case '0':
        return 0;
      case 'x':
        return parse_hex(2);
      case 'u':
        return parse_hex(4);
      default:
        break;
    }
    const bool is_alnum =
        (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (is_alnum) {
      --pos_;
      fail("\"\\" + encode_utf8(c) + "\" is not supported");
    }
    return c;
  }

  char32_t parse_hex(int n_digits) {
    char32_t value = 0;
    for (int i = 0; i < n_digits; ++i, ++pos_) {
      const char32_t c = peek();
      const bool is_digit = c >= '0' && c <= '9';
      const char32_t lower = c | 0x20;
      if (!is_digit && !(lower >= 'a' && lower <= 'f')) {
        fail("expected " + std::to_string(n_digits) + " hex digits");
      }
      value = value * 16 + (is_digit ? c - '0' : lower - 'a' + 10);
    }
    return value;
  }

  CharSet parse_class() {
    const size_t begin = pos_++;
    const bool negated = take('^');
    CharSet set;
    bool first = true;
    while (first || !take(']')) {
      if (first && take(']')) break;  // "[]" matches nothing, as in ECMAScript
      first = false;
      if (at_end()) {
        pos_ = begin;
        fail("a class without its \"]\"");
      }
      if (peek() == '\\') {
        if (const auto escape = parse_class_escape()) {
          set.insert(set.end(), escape->begin(), escape->end());
          continue;
        }
      }
      const char32_t low = parse_class_char();
      char32_t high = low;
      if (peek() == '-' && peek(1) != ']' && pos_ + 1 < text_.size()) {
        ++pos_;
        high = parse_class_char();
        if (high < low) fail("a range whose end is before its beginning");
      }
      set.push_back({low, high});
    }
    set = normalized(std::move(set));
    return negated ? complement(set) : set;
  }

  char32_t parse_class_char() {
    if (peek() != '\\') return text_[pos_++];
    if (peek(1) == 'b') {
      pos_ += 2;
      return '\b';
    }
    return parse_escape();
  }

  std::optional<int> parse_count() {
    if (peek() < '0' || peek() > '9') return std::nullopt;
    int value = 0;
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<int>(text_[pos_++] - '0');
      if (value > kMaxRepetitions) {
        fail("more than " + std::to_string(kMaxRepetitions) + " repetitions");
      }
    }
    return value;
  }

  Expr parse_quantifiers(Expr item) {
    const char32_t c = peek();
    if (c == '*' || c == '+' || c == '?') {
      ++pos_;
      item = c == '?' ? optional(std::move(item)) : repeat(std::move(item), c == '+' ? 1 : 0);
    } else if (c == '{') {
      const size_t begin = pos_++;
      const std::optional<int> min = parse_count();
      std::optional<int> max = min;
      bool unbounded = false;
      if (take(',')) {
        max = parse_count();
        unbounded = !max;
      }
      if (!take('}') || (!min && !max)) {
        pos_ = begin;
        fail("a repetition that is not {m}, {m,} or {m,n}");
      }
      if (!unbounded && *max < min.value_or(0)) {
        pos_ = begin;
        fail("a repetition whose maximum is under its minimum");
      }
      item = repeat(std::move(item), min.value_or(0), unbounded ? Expr::kUnbounded : *max);
    } else {
      return item;
    }
    if (peek() == '+') fail("possessive repetitions are not supported");
    take('?');  // lazy or greedy: the same texts
    if (peek() == '*' || peek() == '{') fail("two repetitions in a row");
    return item;
  }

  std::u32string text_;
  const CharWriter& write_;
  bool is_search_;
  bool has_end_anchor_ = false;
  size_t pos_ = 0;
};

}  // namespace

Expr parse_regex(std::string_view pattern, const CharWriter& write, bool is_search) {
  return Parser(pattern, write, is_search).parse();
}

}  // namespace dsctl::engine::grammar
