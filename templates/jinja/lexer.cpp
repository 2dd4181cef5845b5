#include "templates/jinja/lexer.h"

#include <algorithm>
#include <charconv>

#include "templates/jinja/filters.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

constexpr size_t kNone = std::string::npos;

bool is_digit_char(char c) {
  return c >= '0' && c <= '9';
}

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || is_digit_char(c) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

/// Jinja's settings here are trim_blocks and lstrip_blocks, as Hugging Face sets them.
class Lexer {
 public:
  explicit Lexer(const std::string& source) : source_(source) {}

  std::vector<Token> run() {
    while (pos_ < source_.size())
      lex_text();
    add(TokenType::kEnd, source_.size());
    return std::move(tokens_);
  }

 private:
  std::string_view rest(size_t pos) const { return std::string_view(source_).substr(pos); }
  bool at(size_t pos, std::string_view text) const { return rest(pos).starts_with(text); }

  Token& add(TokenType type, size_t offset, std::string text = {}) {
    Token token;
    token.type = type;
    token.offset = static_cast<uint32_t>(offset);
    token.text = std::move(text);
    tokens_.push_back(std::move(token));
    return tokens_.back();
  }

  /// End of the white space that starts at `pos`.
  size_t skip_space(size_t pos) const {
    while (pos < source_.size()) {
      const CodePoint point = decode(source_, pos);
      if (!is_space(point.code)) break;
      pos += point.size_bytes;
    }
    return pos;
  }

  size_t find_tag(size_t pos) const {
    for (pos = source_.find('{', pos); pos != kNone; pos = source_.find('{', pos + 1)) {
      const char next = pos + 1 < source_.size() ? source_[pos + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') return pos;
    }
    return kNone;
  }

  /// Text before a tag, after the tag's white space control.
  void add_text(size_t start, size_t end, char sign, bool strips_line) {
    std::string_view text = std::string_view(source_).substr(start, end - start);
    if (sign == '-') {
      text = strip_right(text);
    } else if (sign != '+' && strips_line) {
      const size_t newline = text.rfind('\n');
      const size_t line = newline == kNone ? 0 : newline + 1;
      const bool blank = line < text.size() && strip_left(text.substr(line)).empty();
      if (blank && (line > 0 || line_starting_)) text = text.substr(0, line);
    }
    if (!text.empty()) add(TokenType::kText, start, std::string(text));
  }

  /// Moves past the end of a tag at `pos`, which ends with `end`, and the white space it takes.
  void finish_tag(size_t pos, char sign, bool trims_newline) {
    size_t next = pos;
    if (sign == '-') {
      next = skip_space(pos);
    } else if (sign != '+' && trims_newline && at(pos, "\n")) {
      ++next;
    }
    line_starting_ = next > pos && source_[next - 1] == '\n';
    pos_ = next;
  }

  void lex_text() {
    const size_t start = pos_;
    const size_t tag = find_tag(start);
    if (tag == kNone) {
      add_text(start, source_.size(), '+', false);
      pos_ = source_.size();
      return;
    }
    size_t inside = tag + 2;
    char sign = '\0';
    if (inside < source_.size() && (source_[inside] == '-' || source_[inside] == '+')) {
      sign = source_[inside++];
    }
    const char kind = source_[tag + 1];
    add_text(start, tag, sign, kind != '{');
    if (kind == '#') {
      lex_comment(tag, inside);
    } else if (const size_t raw = kind == '%' ? raw_begin(inside) : kNone; raw != kNone) {
      lex_raw(tag, raw);
    } else {
      add(kind == '{' ? TokenType::kVariableBegin : TokenType::kBlockBegin, tag);
      pos_ = inside;
      lex_tag(kind == '{' ? "}}" : "%}", kind == '%');
    }
  }

  void lex_comment(size_t tag, size_t inside) {
    const size_t end = source_.find("#}", inside);
    if (end == kNone) throw SyntaxError{tag, "missing end of comment tag"};
    const char before = end > inside ? source_[end - 1] : '\0';
    finish_tag(end + 2, before == '-' || before == '+' ? before : '\0', true);
  }

  /// Where the text after {% raw %} starts, or kNone when this is another tag.
  size_t raw_begin(size_t inside) const {
    size_t pos = skip_space(inside);
    if (!at(pos, "raw")) return kNone;
    pos = skip_space(pos + 3);
    if (at(pos, "-%}")) return skip_space(pos + 3);
    return at(pos, "%}") ? pos + 2 : kNone;
  }

  void lex_raw(size_t tag, size_t start) {
    for (size_t open = source_.find("{%", start); open != kNone;
         open = source_.find("{%", open + 1)) {
      size_t pos = open + 2;
      char begin_sign = '\0';
      if (at(pos, "-") || at(pos, "+")) begin_sign = source_[pos++];
      pos = skip_space(pos);
      if (!at(pos, "endraw")) continue;
      pos = skip_space(pos + 6);
      char end_sign = '\0';
      if (at(pos, "-%}") || at(pos, "+%}")) end_sign = source_[pos++];
      if (!at(pos, "%}")) continue;
      line_starting_ = start > 0 && source_[start - 1] == '\n';
      add_text(start, open, begin_sign, true);
      finish_tag(pos + 2, end_sign, true);
      return;
    }
    throw SyntaxError{tag, "missing end of raw directive"};
  }

  /// The words of one tag, up to and including its end.
  void lex_tag(std::string_view end, bool is_block) {
    std::string brackets;
    while (true) {
      pos_ = skip_space(pos_);
      if (pos_ >= source_.size()) return;
      if (brackets.empty()) {
        const bool signed_end = (at(pos_, "-") || (is_block && at(pos_, "+"))) && at(pos_ + 1, end);
        if (signed_end || at(pos_, end)) {
          const char sign = signed_end ? source_[pos_] : '\0';
          add(is_block ? TokenType::kBlockEnd : TokenType::kVariableEnd, pos_);
          finish_tag(pos_ + (signed_end ? 1 : 0) + end.size(), sign, is_block);
          return;
        }
      }
      lex_word(brackets);
    }
  }

  void lex_word(std::string& brackets) {
    const char c = source_[pos_];
    if (is_digit_char(c)) return lex_number();
    if (is_name_char(c)) return lex_name();
    if (c == '"' || c == '\'') return lex_string();
    constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                               "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                               ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const std::string_view op : kOperators) {
      if (!at(pos_, op)) continue;
      check_bracket(op[0], brackets);
      add(TokenType::kOperator, pos_, std::string(op));
      pos_ += op.size();
      return;
    }
    throw SyntaxError{pos_, "unexpected character '" + std::string(1, c) + "'"};
  }

  void check_bracket(char c, std::string& brackets) const {
    if (c == '(') brackets += ')';
    if (c == '[') brackets += ']';
    if (c == '{') brackets += '}';
    if (c != ')' && c != ']' && c != '}') return;
    const std::string found = "unexpected '" + std::string(1, c) + "'";
    if (brackets.empty()) throw SyntaxError{pos_, found};
    if (brackets.back() != c) {
      throw SyntaxError{pos_, found + ", expected '" + std::string(1, brackets.back()) + "'"};
    }
    brackets.pop_back();
  }

  void lex_name() {
    const size_t start = pos_;
    while (pos_ < source_.size() && is_name_char(source_[pos_])) {
      const CodePoint point = decode(source_, pos_);
      if (point.code >= 0x80 && !is_alnum(point.code)) break;
      pos_ += point.size_bytes;
    }
    if (pos_ == start) throw SyntaxError{start, "unexpected character"};
    add(TokenType::kName, start, source_.substr(start, pos_ - start));
  }

  /// Digits with single underscores between them, from `pos`; returns where they end.
  size_t digits_end(size_t pos) const {
    if (pos >= source_.size() || !is_digit_char(source_[pos])) return pos;
    while (pos < source_.size()) {
      if (is_digit_char(source_[pos])) {
        ++pos;
      } else if (source_[pos] == '_' && pos + 1 < source_.size() &&
                 is_digit_char(source_[pos + 1])) {
        ++pos;
      } else {
        break;
      }
    }
    return pos;
  }

  /// End of the float that starts here, or kNone when it is an integer.
  size_t float_end(size_t start) const {
    const size_t whole = digits_end(start);
    size_t end = whole;
    if (at(whole, ".")) {
      const size_t fraction = digits_end(whole + 1);
      if (fraction > whole + 1) end = fraction;
    }
    if (at(end, "e") || at(end, "E")) {
      const size_t sign = at(end + 1, "+") || at(end + 1, "-") ? 1 : 0;
      const size_t exponent = digits_end(end + 1 + sign);
      if (exponent > end + 1 + sign) end = exponent;
    }
    return end > whole ? end : kNone;
  }

  void lex_number() {
    const size_t start = pos_;
    // After a point only an integer can stand: x.0.1 are two subscripts.
    const bool after_point = start > 0 && source_[start - 1] == '.';
    if (const size_t end = after_point ? kNone : float_end(start); end != kNone) {
      const auto value = parse_float(source_.substr(start, end - start));
      if (!value) throw SyntaxError{start, "malformed number"};
      add(TokenType::kFloat, start, source_.substr(start, end - start)).real = *value;
      pos_ = end;
      return;
    }
    size_t end = digits_end(start);
    if (source_[start] == '0' && end == start + 1 && end < source_.size()) {
      const size_t prefixed = prefixed_end(start);
      if (prefixed != kNone) end = prefixed;
    } else if (source_[start] == '0') {
      // A leading zero only goes before zeros.
      end = start;
      while (end < source_.size() && (source_[end] == '0' || source_[end] == '_'))
        ++end;
    }
    const std::string text = source_.substr(start, end - start);
    std::optional<Int> value;
    try {
      value = parse_int(text, 0);
    } catch (const JinjaError& error) {
      throw SyntaxError{start, error.what()};
    }
    if (!value) throw SyntaxError{start, "malformed number '" + text + "'"};
    add(TokenType::kInt, start, text).integer = *value;
    pos_ = end;
  }

  /// End of a number such as 0x1f, 0o17 or 0b1, or kNone.
  size_t prefixed_end(size_t start) const {
    const char letter = static_cast<char>(source_[start + 1] | 0x20);
    const std::string_view digits = letter == 'x'   ? "0123456789abcdefABCDEF"
                                    : letter == 'o' ? "01234567"
                                    : letter == 'b' ? "01"
                                                    : "";
    size_t end = start + 2;
    while (end < source_.size() && (digits.find(source_[end]) != std::string_view::npos ||
                                    (source_[end] == '_' && !digits.empty()))) {
      ++end;
    }
    return end > start + 2 ? end : kNone;
  }

  void lex_string() {
    const size_t start = pos_;
    const char quote = source_[start];
    size_t end = start + 1;
    while (end < source_.size() && source_[end] != quote)
      end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) {
      throw SyntaxError{start,
                        std::string("unexpected character ") + quote + ": the string has no end"};
    }
    add(TokenType::kString, start, unescape(start + 1, end));
    pos_ = end + 1;
  }

  /// Python's string escapes; an unknown one keeps its backslash.
  std::string unescape(size_t start, size_t end) const {
    std::string out;
    for (size_t pos = start; pos < end;) {
      if (source_[pos] != '\\') {
        out += source_[pos++];
        continue;
      }
      const char c = source_[pos + 1];
      pos += 2;
      constexpr std::string_view kLetters = "abfnrtv\\'\"";
      constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
      if (const size_t index = kLetters.find(c); index != kNone) {
        out += kMeanings[index];
      } else if (c >= '0' && c <= '7') {
        append_code(out, read_digits(pos - 1, end, 3, 8, pos));
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t n_digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        const size_t first = pos;
        const uint32_t code = read_digits(first, end, n_digits, 16, pos);
        if (pos - first != n_digits || code > 0x10FFFF) {
          throw SyntaxError{first - 2, std::string("truncated \\") + c + " escape"};
        }
        // A surrogate can't stand in UTF-8.
        append_code(out, code >= 0xD800 && code <= 0xDFFF ? 0xFFFD : code);
      } else if (c == 'N') {
        throw SyntaxError{pos - 2, "\\N escapes are not supported"};
      } else if (c != '\n') {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  uint32_t read_digits(size_t pos, size_t end, size_t max_digits, uint32_t base,
                       size_t& after) const {
    uint32_t code = 0;
    size_t count = 0;
    for (; count < max_digits && pos + count < end; ++count) {
      const std::string_view all = "0123456789abcdef";
      const char c = source_[pos + count];
      const char lower = c >= 'A' && c <= 'F' ? static_cast<char>(c | 0x20) : c;
      const size_t digit = all.find(lower);
      if (digit == kNone || digit >= base) break;
      code = code * base + static_cast<uint32_t>(digit);
    }
    after = pos + count;
    return code;
  }

  const std::string& source_;
  size_t pos_ = 0;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::string normalise_source(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      if (i + 1 < source.size() && source[i + 1] == '\n') continue;
      out += '\n';
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

std::string position_prefix(std::string_view source, size_t offset) {
  const std::string_view before = source.substr(0, std::min(offset, source.size()));
  const auto line = std::count(before.begin(), before.end(), '\n') + 1;
  const size_t newline = before.rfind('\n');
  const size_t line_start = newline == std::string_view::npos ? 0 : newline + 1;
  const size_t column = code_length(before.substr(line_start)) + 1;
  return "template:" + std::to_string(line) + ":" + std::to_string(column) + ": ";
}

std::vector<Token> tokenize(const std::string& source) {
  return Lexer(source).run();
}

}  // namespace dsctl::templates::jinja
