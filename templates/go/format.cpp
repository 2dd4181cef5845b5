// fmt.Sprintf, as far as templates can use it.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <optional>

#include "templates/error.h"
#include "templates/go/functions.h"

namespace dsctl::templates::go {
namespace {

// A template that asks for a field of a billion spaces wants to hurt, not to format.
constexpr int kMaxWidth = 10'000;

struct Spec {
  bool minus = false;
  bool plus = false;
  bool sharp = false;
  bool space = false;
  bool zero = false;
  std::optional<int> width;
  std::optional<int> precision;
};

size_t count_code_points(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  }));
}

std::string pad(const Spec& spec, std::string text, bool numeric) {
  if (!spec.width) return text;
  const size_t n = count_code_points(text);
  const auto width = static_cast<size_t>(*spec.width);
  if (n >= width) return text;
  if (spec.minus) return text + std::string(width - n, ' ');
  if (spec.zero && numeric) {
    const size_t sign = !text.empty() && (text[0] == '-' || text[0] == '+') ? 1 : 0;
    return text.insert(sign, width - n, '0');
  }
  return std::string(width - n, ' ') + text;
}

std::string truncated(const Spec& spec, const std::string& text) {
  if (!spec.precision) return text;
  int n = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    if ((static_cast<unsigned char>(text[i]) & 0xC0) == 0x80) continue;
    if (n++ == *spec.precision) return text.substr(0, i);
  }
  return text;
}

std::string quote(const std::string& text) {
  std::string out = "\"";
  char buffer[8];
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\a':
        out += "\\a";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      case '\v':
        out += "\\v";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
          std::snprintf(buffer, sizeof(buffer), "\\x%02x", static_cast<unsigned char>(c));
          out += buffer;
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

std::string hex_text(const std::string& text, bool upper) {
  std::string out;
  char buffer[4];
  for (const char c : text) {
    std::snprintf(buffer, sizeof(buffer), upper ? "%02X" : "%02x", static_cast<unsigned char>(c));
    out += buffer;
  }
  return out;
}

std::string with_sign(const Spec& spec, std::string number) {
  if (number.empty() || number[0] == '-') return number;
  if (spec.plus) return "+" + number;
  if (spec.space) return " " + number;
  return number;
}

std::string integer(const Spec& spec, int64_t value, int base, bool upper) {
  char buffer[80];
  const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, base);
  std::string out(buffer, end.ptr);
  if (upper) {
    std::transform(out.begin(), out.end(), out.begin(),
                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
  }
  return pad(spec, with_sign(spec, std::move(out)), true);
}

std::string real(const Spec& spec, double value, char verb) {
  if (verb == 'v' || (verb == 'g' && !spec.precision)) {
    return pad(spec, with_sign(spec, print_float(value)), true);
  }
  char pattern[8] = {'%', '.', '*', verb, '\0'};
  char buffer[512];
  std::snprintf(buffer, sizeof(buffer), pattern, std::min(spec.precision.value_or(6), 100), value);
  return pad(spec, with_sign(spec, buffer), true);
}

std::string bad_verb(char verb, const Value& value) {
  if (value.is_nil()) return std::string("%!") + verb + "(<nil>)";
  return std::string("%!") + verb + "(" + value.type_name() + "=" + print_value(value) + ")";
}

std::string one(const Spec& spec, char verb, const Value& value) {
  if (verb == 'T') return pad(spec, value.is_nil() ? "<nil>" : value.type_name(), false);
  if (verb == 'v') {
    if (value.is_nil()) return pad(spec, "<nil>", false);
    if (const int64_t* number = value.as_int()) return integer(spec, *number, 10, false);
    if (const double* number = value.as_float()) return real(spec, *number, 'v');
    if (spec.sharp && value.as_string()) return pad(spec, quote(*value.as_string()), false);
    return pad(spec, truncated(spec, print_value(value)), false);
  }
  if (value.is_nil()) return bad_verb(verb, value);
  if (const bool* flag = value.as_bool()) {
    return verb == 't' ? pad(spec, *flag ? "true" : "false", false) : bad_verb(verb, value);
  }
  if (const int64_t* number = value.as_int()) {
    switch (verb) {
      case 'd':
        return integer(spec, *number, 10, false);
      case 'x':
        return integer(spec, *number, 16, false);
      case 'X':
        return integer(spec, *number, 16, true);
      case 'o':
        return integer(spec, *number, 8, false);
      case 'b':
        return integer(spec, *number, 2, false);
      case 'c':
        if (*number >= 0x20 && *number < 0x7F) {
          return pad(spec, std::string(1, static_cast<char>(*number)), false);
        }
        return bad_verb(verb, value);
      default:
        return bad_verb(verb, value);
    }
  }
  if (const double* number = value.as_float()) {
    const bool known =
        verb == 'f' || verb == 'g' || verb == 'e' || verb == 'G' || verb == 'E' || verb == 'F';
    return known ? real(spec, *number, verb) : bad_verb(verb, value);
  }
  const std::string text = print_value(value);
  switch (verb) {
    case 's':
      return pad(spec, truncated(spec, text), false);
    case 'q':
      return pad(spec, quote(truncated(spec, text)), false);
    case 'x':
      return pad(spec, hex_text(text, false), false);
    case 'X':
      return pad(spec, hex_text(text, true), false);
    default:
      return bad_verb(verb, value);
  }
}

class Formatter {
 public:
  Formatter(const std::string& verbs, std::span<const Value> arguments)
      : verbs_(verbs), arguments_(arguments) {}

  std::string run() {
    while (at_ < verbs_.size()) {
      const char c = verbs_[at_++];
      if (c == '%') {
        directive();
      } else {
        out_ += c;
      }
    }
    if (used_ < arguments_.size()) extra();
    return std::move(out_);
  }

 private:
  void directive() {
    Spec spec = flags();
    spec.width = number(spec);
    if (at_ < verbs_.size() && verbs_[at_] == '.') {
      ++at_;
      spec.precision = number(spec).value_or(0);
    }
    if (at_ >= verbs_.size()) {
      out_ += "%!(NOVERB)";
      return;
    }
    const char verb = verbs_[at_++];
    if (verb == '%') {
      out_ += '%';
    } else if (used_ >= arguments_.size()) {
      out_ += std::string("%!") + verb + "(MISSING)";
    } else {
      out_ += one(spec, verb, arguments_[used_++]);
    }
  }

  Spec flags() {
    Spec spec;
    for (; at_ < verbs_.size(); ++at_) {
      switch (verbs_[at_]) {
        case '-':
          spec.minus = true;
          continue;
        case '+':
          spec.plus = true;
          continue;
        case '#':
          spec.sharp = true;
          continue;
        case ' ':
          spec.space = true;
          continue;
        case '0':
          spec.zero = true;
          continue;
        default:
          return spec;
      }
    }
    return spec;
  }

  std::optional<int> number(Spec& spec) {
    if (at_ < verbs_.size() && verbs_[at_] == '*') {
      ++at_;
      const int64_t* value = used_ < arguments_.size() ? arguments_[used_++].as_int() : nullptr;
      if (!value || *value > kMaxWidth || *value < -kMaxWidth) return std::nullopt;
      if (*value < 0) spec.minus = true;
      return static_cast<int>(*value < 0 ? -*value : *value);
    }
    if (at_ >= verbs_.size() || verbs_[at_] < '0' || verbs_[at_] > '9') return std::nullopt;
    int value = 0;
    while (at_ < verbs_.size() && verbs_[at_] >= '0' && verbs_[at_] <= '9') {
      value = std::min(kMaxWidth, value * 10 + (verbs_[at_++] - '0'));
    }
    return value;
  }

  void extra() {
    out_ += "%!(EXTRA ";
    for (size_t i = used_; i < arguments_.size(); ++i) {
      if (i > used_) out_ += ", ";
      const Value& value = arguments_[i];
      out_ += value.is_nil() ? "<nil>" : value.type_name() + "=" + print_value(value);
    }
    out_ += ")";
  }

  const std::string& verbs_;
  std::span<const Value> arguments_;
  size_t at_ = 0;
  size_t used_ = 0;
  std::string out_;
};

}  // namespace

std::string format(const std::string& verbs, std::span<const Value> arguments) {
  return Formatter(verbs, arguments).run();
}

}  // namespace dsctl::templates::go
