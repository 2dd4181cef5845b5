#include "templates/jinja/string_format.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <optional>

#include "templates/jinja/operations.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

constexpr Int kMaxPrecision = 4000;

/// What stands between % or : and the letter of the conversion.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ =, or 0: by type
  char sign = '-';
  bool alternate = false;
  char group = 0;  // , or _
  Int width = 0;
  std::optional<Int> precision;
  char type = 0;
};

std::string pad(std::string text, const Spec& spec, char default_align, Budget& budget) {
  const Int length = static_cast<Int>(code_length(text));
  if (spec.width <= length) return text;
  const Int limit = static_cast<Int>(budget.limits().max_string_bytes);
  budget.charge_string(static_cast<size_t>(std::min(spec.width, limit) * 4));
  if (spec.width > limit / 4) fail_value("width too big");
  const size_t missing = static_cast<size_t>(spec.width - length);
  const auto fill = [&](size_t count) {
    std::string filled;
    for (size_t i = 0; i < count; ++i)
      filled += spec.fill;
    return filled;
  };
  switch (spec.align ? spec.align : default_align) {
    case '<':
      return text + fill(missing);
    case '^':
      return fill(missing / 2) + text + fill(missing - missing / 2);
    case '=': {
      // Padding goes between the sign or prefix and the digits.
      size_t start = !text.empty() && (text[0] == '-' || text[0] == '+' || text[0] == ' ') ? 1 : 0;
      if (text.size() > start + 1 && text[start] == '0' &&
          std::string_view("xXob").find(text[start + 1]) != std::string_view::npos) {
        start += 2;
      }
      return text.substr(0, start) + fill(missing) + text.substr(start);
    }
    default:
      return fill(missing) + text;
  }
}

std::string with_sign(std::string digits, bool negative, char sign) {
  if (negative) return "-" + digits;
  if (sign == '+') return "+" + digits;
  if (sign == ' ') return " " + digits;
  return digits;
}

std::string in_base(Int value, unsigned base, bool upper) {
  UnsignedInt rest =
      value < 0 ? ~static_cast<UnsignedInt>(value) + 1 : static_cast<UnsignedInt>(value);
  const std::string_view letters = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::string digits;
  do {
    digits.insert(digits.begin(), letters[static_cast<size_t>(rest % base)]);
    rest /= base;
  } while (rest != 0);
  return digits;
}

/// Puts a separator between groups of digits before the point.
std::string grouped(const std::string& digits, char separator, size_t group_size) {
  if (!separator) return digits;
  const size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  std::string out;
  for (size_t i = 0; i < whole; ++i) {
    if (i > 0 && (whole - i) % group_size == 0) out += separator;
    out += digits[i];
  }
  return out + digits.substr(whole);
}

std::string print_double(const char* letter, double value, Int precision, bool alternate) {
  if (precision < 0 || precision > kMaxPrecision) fail_value("precision too big");
  const std::string format = std::string(alternate ? "%#.*" : "%.*") + letter;
  const int size = std::snprintf(nullptr, 0, format.c_str(), static_cast<int>(precision), value);
  std::string text(static_cast<size_t>(size) + 1, '\0');
  std::snprintf(text.data(), text.size(), format.c_str(), static_cast<int>(precision), value);
  text.pop_back();
  return text;
}

/// The digits of |value|, without sign.
std::string format_double(double value, const Spec& spec) {
  const double size = std::fabs(value);
  const char type = spec.type;
  if (std::isnan(value) || std::isinf(value)) {
    const bool upper = type == 'F' || type == 'E' || type == 'G';
    const std::string text = std::isnan(value) ? "nan" : "inf";
    return (upper ? to_upper(text) : text) + (type == '%' ? "%" : "");
  }
  if (type == '%') {
    return print_double("f", size * 100, spec.precision.value_or(6), spec.alternate) + "%";
  }
  if (type == 0 || type == 'n') {
    if (!spec.precision && type == 0) return format_float(size);
    std::string text = print_double("g", size, std::max<Int>(spec.precision.value_or(6), 1), false);
    if (type == 0 && text.find_first_of(".e") == std::string::npos) text += ".0";
    return text;
  }
  const char letter[2] = {type, 0};
  const bool general = type == 'g' || type == 'G';
  Int precision = spec.precision.value_or(6);
  if (general && precision == 0) precision = 1;
  return print_double(letter, size, precision, spec.alternate);
}

double to_double(const Value& value, std::string_view what) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) {
    fail_type(std::string(what) + " must be real number, not " + type_name(value));
  }
  return value.as_double();
}

Int truncate_double(double value) {
  if (std::isnan(value)) fail_value("cannot convert float NaN to integer");
  if (!(std::fabs(value) < 8.5e37)) fail_value("cannot convert so large a float to integer");
  return static_cast<Int>(value);
}

/// Reads digits as a number, capped so that it can't overflow.
Int read_number(std::string_view text, size_t& pos) {
  Int number = 0;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    number = std::min<Int>(number * 10 + (text[pos++] - '0'), Int{1} << 60);
  }
  return number;
}

/// One "%..." formatting run over the text and its arguments.
class PercentFormatter {
 public:
  PercentFormatter(std::string_view format, const Value& right, Budget& budget)
      : format_(format), right_(right), budget_(budget) {
    if (right.is(Object::Type::kTuple)) {
      arguments_ = static_cast<const Sequence*>(right.as_object())->items;
    } else {
      arguments_ = {right};
    }
  }

  std::string run() {
    std::string out;
    while (pos_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', pos_), format_.size());
      out += format_.substr(pos_, percent - pos_);
      pos_ = percent + 1;
      if (percent < format_.size()) out += convert();
      if (out.size() > budget_.limits().max_string_bytes) budget_.charge_string(out.size());
    }
    const bool mapping = right_.is(Object::Type::kDict) || right_.is(Object::Type::kList) ||
                         right_.is(Object::Type::kRange) || right_.is_undefined();
    if (next_ < arguments_.size() && !mapping) {
      fail_type("not all arguments converted during string formatting");
    }
    return out;
  }

 private:
  char peek() const { return pos_ < format_.size() ? format_[pos_] : '\0'; }

  const Value& next_argument() {
    if (next_ >= arguments_.size()) fail_type("not enough arguments for format string");
    return arguments_[next_++];
  }

  Int star_or_number() {
    if (peek() != '*') return read_number(format_, pos_);
    ++pos_;
    const Value& given = next_argument();
    if (!given.is_integral()) fail_type("* wants int");
    return std::clamp<Int>(given.as_int(), -(Int{1} << 60), Int{1} << 60);
  }

  std::optional<Value> named_argument() {
    if (peek() != '(') return std::nullopt;
    const size_t close = format_.find(')', pos_);
    if (close == std::string_view::npos) fail_value("incomplete format key");
    if (!right_.is(Object::Type::kDict)) fail_type("format requires a mapping");
    const std::string_view key = format_.substr(pos_ + 1, close - pos_ - 1);
    pos_ = close + 1;
    const Value* found = static_cast<const Dict*>(right_.as_object())->find(key);
    if (!found) fail_value(repr_string(key));
    next_ = arguments_.size();
    return *found;
  }

  Spec read_spec(bool& left) {
    Spec spec;
    for (bool more = true; more;) {
      switch (peek()) {
        case '-':
          left = true;
          break;
        case '+':
          spec.sign = '+';
          break;
        case ' ':
          if (spec.sign != '+') spec.sign = ' ';
          break;
        case '#':
          spec.alternate = true;
          break;
        case '0':
          spec.fill = "0";
          break;
        default:
          more = false;
      }
      if (more) ++pos_;
    }
    spec.width = star_or_number();
    if (spec.width < 0) {
      left = true;
      spec.width = -spec.width;
    }
    if (peek() == '.') {
      ++pos_;
      spec.precision = std::max<Int>(star_or_number(), 0);
    }
    if (std::string_view("hlL").find(peek()) != std::string_view::npos && pos_ < format_.size()) {
      ++pos_;
    }
    if (pos_ >= format_.size()) fail_value("incomplete format");
    spec.type = format_[pos_++];
    return spec;
  }

  std::string convert() {
    const std::optional<Value> named = named_argument();
    bool left = false;
    Spec spec = read_spec(left);
    if (spec.type == '%') return "%";
    const std::string_view numeric = "diuoxXeEfFgG";
    const bool is_numeric_type = numeric.find(spec.type) != std::string_view::npos;
    if (!is_numeric_type && std::string_view("crsa").find(spec.type) == std::string_view::npos) {
      fail_value("unsupported format character '" + std::string(1, spec.type) + "'");
    }
    const Value value = named ? *named : next_argument();
    std::string text = is_numeric_type ? number(value, spec) : plain(value, spec);
    spec.align = left ? '<' : spec.fill == "0" && is_numeric_type ? '=' : '>';
    if (left || !is_numeric_type) spec.fill = " ";
    return pad(std::move(text), spec, '>', budget_);
  }

  std::string plain(const Value& value, const Spec& spec) {
    std::string text;
    if (spec.type == 'c') {
      if (value.is_integral()) {
        if (value.as_int() < 0 || value.as_int() > 0x10FFFF) {
          fail_value("%c arg not in range(0x110000)");
        }
        append_code(text, static_cast<uint32_t>(value.as_int()));
      } else if (value.is_string() && code_length(value.as_string()) == 1) {
        text = value.as_string();
      } else {
        fail_type("%c requires int or char");
      }
      return text;
    }
    text = spec.type == 's' ? to_str(value, budget_) : repr(value, budget_);
    if (spec.precision && *spec.precision < static_cast<Int>(text.size())) {
      text.resize(byte_offset(text, static_cast<size_t>(*spec.precision)));
    }
    return text;
  }

  std::string number(const Value& value, const Spec& spec) {
    if (value.is_undefined()) fail_undefined(value);
    if (std::string_view("eEfFgG").find(spec.type) != std::string_view::npos) {
      const double given = to_double(value, "");
      return with_sign(format_double(given, spec), std::signbit(given) && !std::isnan(given),
                       spec.sign);
    }
    const bool decimal = spec.type == 'd' || spec.type == 'i' || spec.type == 'u';
    const std::string type(1, spec.type);
    if (!value.is_number()) {
      fail_type("%" + type + " format: " + (decimal ? "a real number" : "an integer") +
                " is required, not " + type_name(value));
    }
    if (value.is_float() && !decimal) {
      fail_type("%" + type + " format: an integer is required, not float");
    }
    const Int given = value.is_float() ? truncate_double(value.as_double()) : value.as_int();
    std::string digits = in_base(given, decimal ? 10 : spec.type == 'o' ? 8 : 16, spec.type == 'X');
    if (spec.precision) {
      if (*spec.precision > kMaxPrecision) fail_value("precision too big");
      while (static_cast<Int>(digits.size()) < *spec.precision)
        digits.insert(0, 1, '0');
    }
    if (spec.alternate && !decimal) digits = std::string("0") + spec.type + digits;
    return with_sign(std::move(digits), given < 0, spec.sign);
  }

  std::string_view format_;
  const Value& right_;
  Budget& budget_;
  Values arguments_;
  size_t pos_ = 0;
  size_t next_ = 0;
};

/// One "{}".format(...) run.
class BraceFormatter {
 public:
  BraceFormatter(const Arguments& arguments, Budget& budget)
      : arguments_(arguments), budget_(budget) {}

  std::string run(std::string_view format, int depth) {
    if (depth > 2) fail_value("max string recursion exceeded");
    std::string out;
    for (size_t pos = 0; pos < format.size();) {
      const char c = format[pos];
      const bool doubled = pos + 1 < format.size() && format[pos + 1] == c;
      if (c != '{' && c != '}') {
        out += c;
        ++pos;
      } else if (doubled) {
        out += c;
        pos += 2;
      } else if (c == '}') {
        fail_value("single '}' encountered in format string");
      } else {
        const size_t close = matching_brace(format, pos);
        out += field(format.substr(pos + 1, close - pos - 1), depth);
        pos = close + 1;
      }
      if (out.size() > budget_.limits().max_string_bytes) budget_.charge_string(out.size());
    }
    return out;
  }

 private:
  static size_t matching_brace(std::string_view format, size_t open) {
    int depth = 0;
    for (size_t pos = open; pos < format.size(); ++pos) {
      if (format[pos] == '{') ++depth;
      if (format[pos] == '}' && --depth == 0) return pos;
    }
    fail_value(open + 1 == format.size() ? "single '{' encountered in format string"
                                         : "expected '}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    const size_t name_end = std::min(text.find_first_of("!:"), text.size());
    const Value value = lookup(text.substr(0, name_end));
    size_t pos = name_end;
    char conversion = 0;
    if (pos < text.size() && text[pos] == '!') {
      if (pos + 1 >= text.size()) fail_value("unmatched '{' in format spec");
      conversion = text[pos + 1];
      pos += 2;
      if (pos < text.size() && text[pos] != ':') {
        fail_value("expected ':' after conversion specifier");
      }
    }
    std::string spec_text;
    if (pos < text.size()) spec_text = run(text.substr(pos + 1), depth + 1);
    if (conversion == 'r' || conversion == 'a') {
      return formatted(Value::string(repr(value, budget_)), spec_text);
    }
    if (conversion == 's') return formatted(Value::string(to_str(value, budget_)), spec_text);
    if (conversion) fail_value("unknown conversion specifier " + std::string(1, conversion));
    return formatted(value, spec_text);
  }

  Value lookup(std::string_view name) {
    size_t pos = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, pos));
    while (pos < name.size()) {
      if (name[pos] == '.') {
        const size_t end = std::min(name.find_first_of(".[", pos + 1), name.size());
        value = get_attribute(value, name.substr(pos + 1, end - pos - 1), budget_);
        pos = end;
        continue;
      }
      const size_t close = name.find(']', pos);
      if (name[pos] != '[' || close == std::string_view::npos) {
        fail_value("missing ']' in format string");
      }
      const std::string_view key = name.substr(pos + 1, close - pos - 1);
      size_t digits = 0;
      const Int index = read_number(key, digits);
      value = get_item(value,
                       !key.empty() && digits == key.size() ? Value::integer(index)
                                                            : Value::string(std::string(key)),
                       budget_);
      pos = close + 1;
    }
    return value;
  }

  Value first(std::string_view name) {
    size_t digits = 0;
    Int index = read_number(name, digits);
    if (digits == name.size()) {
      const Numbering wanted = name.empty() ? Numbering::kAutomatic : Numbering::kManual;
      if (numbering_ != Numbering::kNone && numbering_ != wanted) {
        fail_value(
            "cannot switch between automatic field numbering and manual field specification");
      }
      numbering_ = wanted;
      if (name.empty()) index = next_++;
      if (index >= static_cast<Int>(arguments_.positional.size())) {
        fail_value("replacement index " + format_int(index) +
                   " out of range for positional args tuple");
      }
      return arguments_.positional[static_cast<size_t>(index)];
    }
    for (const auto& [key, value] : arguments_.keywords) {
      if (key == name) return value;
    }
    fail_value(repr_string(name));
  }

  static Spec parse_spec(std::string_view text) {
    Spec spec;
    size_t pos = 0;
    const auto is_align = [&](size_t at) {
      return at < text.size() && std::string_view("<>^=").find(text[at]) != std::string_view::npos;
    };
    const size_t first_size = text.empty() ? 0 : decode(text, 0).size_bytes;
    if (!text.empty() && is_align(first_size)) {
      spec.fill = text.substr(0, first_size);
      spec.align = text[first_size];
      pos = first_size + 1;
    } else if (is_align(0)) {
      spec.align = text[0];
      pos = 1;
    }
    const auto accept = [&](std::string_view letters) {
      if (pos >= text.size() || letters.find(text[pos]) == std::string_view::npos) return '\0';
      return text[pos++];
    };
    if (const char sign = accept("+- ")) spec.sign = sign;
    accept("z");
    spec.alternate = accept("#") != 0;
    if (accept("0") && !spec.align) {
      spec.fill = "0";
      spec.align = '=';
    }
    spec.width = read_number(text, pos);
    spec.group = accept(",_");
    if (accept(".")) {
      const size_t start = pos;
      spec.precision = read_number(text, pos);
      if (pos == start) fail_value("format specifier missing precision");
    }
    spec.type = accept("bcdeEfFgGnosxX%");
    if (pos != text.size()) fail_value("invalid format specifier");
    return spec;
  }

  [[noreturn]] static void fail_code(char type, const Value& value) {
    fail_value("unknown format code '" + std::string(1, type) + "' for object of type '" +
               type_name(value) + "'");
  }

  std::string formatted(const Value& value, const std::string& spec_text) {
    if (spec_text.empty()) return to_str(value, budget_);
    if (!value.is_string() && !value.is_number()) {
      fail_type("unsupported format string passed to " + type_name(value) + ".__format__");
    }
    const Spec spec = parse_spec(spec_text);
    if (value.is_string()) return formatted_string(value, spec);
    const bool as_float =
        spec.type && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
    if (value.is_float() || as_float) {
      if (value.is_float() && spec.type && !as_float && spec.type != 'n') {
        fail_code(spec.type, value);
      }
      const double given = value.as_double();
      const bool negative = std::signbit(given) && !std::isnan(given);
      return pad(with_sign(grouped(format_double(given, spec), spec.group, 3), negative, spec.sign),
                 spec, '>', budget_);
    }
    return formatted_int(value, spec);
  }

  std::string formatted_string(const Value& value, const Spec& spec) {
    if (spec.type && spec.type != 's') fail_code(spec.type, value);
    if (spec.group) fail_value("cannot specify '" + std::string(1, spec.group) + "' with 's'");
    if (spec.align == '=') fail_value("'=' alignment not allowed in string format specifier");
    std::string text = value.as_string();
    if (spec.precision && *spec.precision < static_cast<Int>(text.size())) {
      text.resize(byte_offset(text, static_cast<size_t>(*spec.precision)));
    }
    return pad(std::move(text), spec, '<', budget_);
  }

  std::string formatted_int(const Value& value, const Spec& spec) {
    if (spec.precision) fail_value("precision not allowed in integer format specifier");
    const Int given = value.as_int();
    if (spec.type == 'c') {
      if (given < 0 || given > 0x10FFFF) fail_value("%c arg not in range(0x110000)");
      std::string text;
      append_code(text, static_cast<uint32_t>(given));
      return pad(std::move(text), spec, '<', budget_);
    }
    if (spec.type == 's') fail_code('s', value);
    const bool hex = spec.type == 'x' || spec.type == 'X';
    const unsigned base = hex ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
    std::string digits =
        grouped(in_base(given, base, spec.type == 'X'), spec.group, base == 10 ? 3 : 4);
    if (spec.alternate && base != 10) digits = std::string("0") + spec.type + digits;
    return pad(with_sign(std::move(digits), given < 0, spec.sign), spec, '>', budget_);
  }

  enum class Numbering { kNone, kAutomatic, kManual };

  const Arguments& arguments_;
  Budget& budget_;
  Numbering numbering_ = Numbering::kNone;
  Int next_ = 0;
};

}  // namespace

std::string format_percent(std::string_view format, const Value& right, Budget& budget) {
  return PercentFormatter(format, right, budget).run();
}

std::string format_braces(std::string_view format, const Arguments& arguments, Budget& budget) {
  return BraceFormatter(arguments, budget).run(format, 0);
}

std::string format_fixed(double value, int precision) {
  const std::string text = print_double("f", std::fabs(value), precision, false);
  return std::signbit(value) && !std::isnan(value) ? "-" + text : text;
}

}  // namespace dsctl::templates::jinja
