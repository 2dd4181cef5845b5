#include "templates/go/lexer.h"

#include <cctype>

#include "templates/error.h"

namespace dsctl::templates::go {

std::string where(std::string_view source, Position position) {
  int line = 1;
  size_t line_start = 0;
  for (size_t i = 0; i < position && i < source.size(); ++i) {
    if (source[i] != '\n') continue;
    ++line;
    line_start = i + 1;
  }
  return "template:" + std::to_string(line) + ":" + std::to_string(position - line_start + 1) +
         ": ";
}

namespace {

constexpr std::string_view kSpaceChars = " \t\r\n";

bool is_space(char c) {
  return kSpaceChars.find(c) != std::string_view::npos;
}

bool is_name_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' ||
         static_cast<unsigned char>(c) >= 0x80;
}

void append_utf8(std::string& out, uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  std::vector<Token> run() {
    while (true) {
      const size_t left = source_.find("{{", at_);
      if (left == std::string_view::npos) {
        text(at_, source_.size());
        break;
      }
      const size_t start = at_;
      at_ = left + 2;
      size_t text_end = left;
      // "{{- " trims the text before; the marker needs a space after it, or -3 would be one.
      if (at_ + 1 < source_.size() && source_[at_] == '-' && is_space(source_[at_ + 1])) {
        at_ += 2;
        while (text_end > start && is_space(source_[text_end - 1]))
          --text_end;
      }
      text(start, text_end);
      if (source_.substr(at_, 2) == "/*") {
        comment(left);
      } else {
        action(left);
      }
    }
    add(Token::Kind::kEnd, source_.size(), "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(Position position, const std::string& message) const {
    throw Error(where(source_, position) + message);
  }

  void add(Token::Kind kind, Position position, std::string text) {
    tokens_.push_back({kind, position, std::move(text)});
  }

  void text(size_t begin, size_t end) {
    if (begin < end) {
      add(Token::Kind::kText, begin, std::string(source_.substr(begin, end - begin)));
    }
  }

  bool at_right_trim() const {
    return at_ + 3 < source_.size() && is_space(source_[at_]) &&
           source_.substr(at_ + 1, 3) == "-}}";
  }

  void trim_after() {
    while (at_ < source_.size() && is_space(source_[at_]))
      ++at_;
  }

  void comment(Position left) {
    const size_t end = source_.find("*/", at_ + 2);
    if (end == std::string_view::npos) fail(left, "unclosed comment");
    at_ = end + 2;
    if (at_right_trim()) {
      at_ += 4;
      trim_after();
    } else if (source_.substr(at_, 2) == "}}") {
      at_ += 2;
    } else {
      fail(at_, "comment ends before closing delimiter");
    }
  }

  void action(Position left) {
    add(Token::Kind::kLeft, left, "");
    while (true) {
      if (at_ >= source_.size()) fail(left, "unclosed action");
      if (at_right_trim()) {
        add(Token::Kind::kRight, at_ + 2, "");
        at_ += 4;
        trim_after();
        return;
      }
      if (source_.substr(at_, 2) == "}}") {
        add(Token::Kind::kRight, at_, "");
        at_ += 2;
        return;
      }
      token();
    }
  }

  void token() {
    const size_t start = at_;
    const char c = source_[at_];
    if (is_space(c)) {
      // A space before a trimming close belongs to the close.
      while (at_ < source_.size() && is_space(source_[at_]) && !at_right_trim())
        ++at_;
      return add(Token::Kind::kSpace, start, "");
    }
    const auto single = [&](Token::Kind kind) {
      ++at_;
      add(kind, start, "");
    };
    switch (c) {
      case '|':
        return single(Token::Kind::kPipe);
      case ',':
        return single(Token::Kind::kComma);
      case '(':
        return single(Token::Kind::kLeftParen);
      case ')':
        return single(Token::Kind::kRightParen);
      case '=':
        return single(Token::Kind::kAssign);
      case '"':
        return quoted();
      case '`':
        return raw_quoted();
      case '\'':
        return character();
      default:
        break;
    }
    if (c == ':') {
      if (source_.substr(at_, 2) != ":=") fail(start, "expected :=");
      at_ += 2;
      return add(Token::Kind::kDeclare, start, "");
    }
    const bool digit_follows =
        at_ + 1 < source_.size() && std::isdigit(static_cast<unsigned char>(source_[at_ + 1]));
    if (std::isdigit(static_cast<unsigned char>(c)) ||
        ((c == '-' || c == '+' || c == '.') && digit_follows)) {
      return number();
    }
    if (c == '.') {
      ++at_;
      const std::string name = take_name();
      return add(name.empty() ? Token::Kind::kDot : Token::Kind::kField, start, name);
    }
    if (c == '$') {
      ++at_;
      return add(Token::Kind::kVariable, start, "$" + take_name());
    }
    if (is_name_char(c)) return add(Token::Kind::kIdentifier, start, take_name());
    fail(start, std::string("unexpected \"") + c + "\" in an action");
  }

  std::string take_name() {
    const size_t start = at_;
    while (at_ < source_.size() && is_name_char(source_[at_]))
      ++at_;
    return std::string(source_.substr(start, at_ - start));
  }

  void number() {
    const size_t start = at_;
    if (source_[at_] == '-' || source_[at_] == '+') ++at_;
    while (at_ < source_.size()) {
      const char c = source_[at_];
      const bool exponent_sign = (c == '-' || c == '+') &&
                                 (source_[at_ - 1] == 'e' || source_[at_ - 1] == 'E') &&
                                 source_.substr(start, 3).find('x') == std::string_view::npos;
      if (!is_name_char(c) && c != '.' && !exponent_sign) break;
      ++at_;
    }
    add(Token::Kind::kNumber, start, std::string(source_.substr(start, at_ - start)));
  }

  void raw_quoted() {
    const size_t start = at_;
    const size_t end = source_.find('`', at_ + 1);
    if (end == std::string_view::npos) fail(start, "unterminated raw quoted string");
    add(Token::Kind::kString, start, std::string(source_.substr(at_ + 1, end - at_ - 1)));
    at_ = end + 1;
  }

  void quoted() {
    const size_t start = at_++;
    std::string out;
    while (true) {
      if (at_ >= source_.size() || source_[at_] == '\n') fail(start, "unterminated quoted string");
      if (source_[at_] == '"') break;
      take_char(out, start);
    }
    ++at_;
    add(Token::Kind::kString, start, std::move(out));
  }

  void character() {
    const size_t start = at_++;
    std::string out;
    while (at_ < source_.size() && source_[at_] != '\'' && source_[at_] != '\n') {
      take_char(out, start);
    }
    if (at_ >= source_.size() || source_[at_] != '\'') {
      fail(start, "unterminated character constant");
    }
    ++at_;
    add(Token::Kind::kChar, start, std::move(out));
  }

  /// One character of a string or character constant, escapes decoded.
  void take_char(std::string& out, Position start) {
    const char c = source_[at_++];
    if (c != '\\') {
      out += c;
      return;
    }
    if (at_ >= source_.size()) fail(start, "unterminated quoted string");
    const char escape = source_[at_++];
    switch (escape) {
      case 'a':
        out += '\a';
        return;
      case 'b':
        out += '\b';
        return;
      case 'f':
        out += '\f';
        return;
      case 'n':
        out += '\n';
        return;
      case 'r':
        out += '\r';
        return;
      case 't':
        out += '\t';
        return;
      case 'v':
        out += '\v';
        return;
      case '\\':
        out += '\\';
        return;
      case '\'':
        out += '\'';
        return;
      case '"':
        out += '"';
        return;
      case 'x':
        out += static_cast<char>(take_digits(2, 16, start));
        return;
      case 'u':
        return append_code(out, take_digits(4, 16, start), start);
      case 'U':
        return append_code(out, take_digits(8, 16, start), start);
      default:
        break;
    }
    if (escape >= '0' && escape <= '7') {
      --at_;
      const uint32_t value = take_digits(3, 8, start);
      if (value > 255) fail(at_, "octal escape above \\377");
      out += static_cast<char>(value);
      return;
    }
    fail(at_ - 1, std::string("unknown escape \"\\") + escape + "\"");
  }

  void append_code(std::string& out, uint32_t code, Position start) const {
    if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) {
      fail(start, "escape is not a valid code point");
    }
    append_utf8(out, code);
  }

  uint32_t take_digits(int count, uint32_t base, Position start) {
    uint32_t value = 0;
    for (int i = 0; i < count; ++i, ++at_) {
      const char c = at_ < source_.size() ? source_[at_] : '\0';
      const uint32_t digit = c >= '0' && c <= '9'   ? static_cast<uint32_t>(c - '0')
                             : c >= 'a' && c <= 'f' ? static_cast<uint32_t>(c - 'a' + 10)
                             : c >= 'A' && c <= 'F' ? static_cast<uint32_t>(c - 'A' + 10)
                                                    : 99;
      if (digit >= base) fail(start, "bad escape in a string");
      value = value * base + digit;
    }
    return value;
  }

  std::string_view source_;
  size_t at_ = 0;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) {
  return Lexer(source).run();
}

}  // namespace dsctl::templates::go
