// The filters that take one value: text, numbers, JSON. Those over sequences are in
// sequence_filters.cpp.
#include "templates/jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "templates/jinja/json.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/string_format.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

/// The text of a value, and whether the result stays markup.
struct SoftString {
  std::string text;
  bool safe;
};

SoftString soft_string(Runtime& runtime, const Value& value) {
  if (value.is_string()) return {value.as_string(), value.as_text().safe};
  return {to_str(value, runtime.budget), false};
}

Value result(Runtime& runtime, std::string text, bool safe = false) {
  runtime.budget.charge_string(text.size());
  return safe ? Value::markup(std::move(text)) : Value::string(std::move(text));
}

/// The string given as Python's str methods and operators want it.
const std::string& expect_string(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) {
    fail_type("expected a string, got '" + type_name(value) + "'");
  }
  return value.as_string();
}

template <std::string (*kChange)(std::string_view text)>
Value change_text(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("filter", arguments, {}, 0);
  const SoftString given = soft_string(runtime, value);
  return result(runtime, kChange(given.text), given.safe);
}

/// Jinja's title filter starts words after white space and -({[< only.
std::string title_words(std::string_view text) {
  std::string out;
  std::string word;
  const auto flush = [&] {
    if (word.empty()) return;
    const size_t first = decode(word, 0).size_bytes;
    out += to_upper(word.substr(0, first)) + to_lower(word.substr(first));
    word.clear();
  };
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint point = decode(text, pos);
    const bool breaks =
        is_space(point.code) ||
        (point.code < 0x80 &&
         std::string_view("-({[<").find(static_cast<char>(point.code)) != std::string_view::npos);
    if (breaks) {
      flush();
      out += text.substr(pos, point.size_bytes);
    } else {
      word += text.substr(pos, point.size_bytes);
    }
    pos += point.size_bytes;
  }
  flush();
  return out;
}

Value filter_trim(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("trim", arguments, {"chars"}, 0);
  const SoftString given = soft_string(runtime, value);
  std::string_view text = given.text;
  if (!bound.get(0) || bound.get(0)->is_none()) {
    text = strip_right(strip_left(text));
  } else {
    const std::string chars = bound.string_or(0, "");
    runtime.budget.charge_steps(chars.size() * given.text.size() / 1024);
    text = strip_right(strip_left(text, chars), chars);
  }
  return result(runtime, std::string(text), given.safe);
}

Value filter_replace(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("replace", arguments, {"old", "new", "count"}, 2);
  const bool all = !bound.get(2) || bound.get(2)->is_none();
  Budget& budget = runtime.budget;
  return result(
      runtime, replace_text(to_str(value, budget), to_str(*bound.get(0), budget),
                            to_str(*bound.get(1), budget), all ? -1 : bound.int_or(2, -1), budget));
}

Value filter_string(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("string", arguments, {}, 0);
  if (value.is_string()) return value;
  return result(runtime, to_str(value, runtime.budget));
}

Value filter_safe(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("safe", arguments, {}, 0);
  return result(runtime, to_str(value, runtime.budget), true);
}

Value filter_escape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("escape", arguments, {}, 0);
  if (value.is_string() && value.as_text().safe) return value;
  return result(runtime, escape_html(to_str(value, runtime.budget)), true);
}

Value filter_force_escape(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("forceescape", arguments, {}, 0);
  return result(runtime, escape_html(to_str(value, runtime.budget)), true);
}

Value filter_indent(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("indent", arguments, {"width", "first", "blank"}, 0);
  const std::string text = expect_string(value) + "\n";
  std::string indentation;
  if (bound.get(0) && bound.get(0)->is_string()) {
    indentation = bound.string_or(0, "");
  } else {
    const Int width = std::max<Int>(bound.int_or(0, 4), 0);
    runtime.budget.charge_string(static_cast<size_t>(std::min<Int>(width, Int{1} << 40)));
    indentation.assign(static_cast<size_t>(width), ' ');
  }
  const bool blank = bound.bool_or(2, false);
  std::string out = bound.bool_or(1, false) ? indentation : "";
  bool first = true;
  for (const std::string_view line : split_lines(text, false)) {
    if (!first) {
      out += '\n';
      if (blank || !line.empty()) out += indentation;
    }
    first = false;
    out += line;
    if (out.size() > runtime.budget.limits().max_string_bytes) break;
  }
  return result(runtime, std::move(out), value.as_text().safe);
}

Value filter_center(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("center", arguments, {"width"}, 0);
  const SoftString given = soft_string(runtime, value);
  return call_string_method(runtime,
                            given.safe ? Value::markup(given.text) : Value::string(given.text),
                            "center", {{Value::integer(bound.int_or(0, 80))}, {}});
}

Value filter_format(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const SoftString given = soft_string(runtime, value);
  if (!arguments.positional.empty() && !arguments.keywords.empty()) {
    fail_type("can't handle positional and keyword arguments at the same time");
  }
  Value right;
  if (arguments.keywords.empty()) {
    right = make_tuple(runtime.budget, arguments.positional);
  } else {
    auto dict = std::make_shared<Dict>();
    for (const auto& [name, argument] : arguments.keywords) {
      dict->set(Value::string(name), argument, runtime.budget);
    }
    right = Value::object(std::move(dict));
  }
  return result(runtime, format_percent(given.text, right, runtime.budget), given.safe);
}

Value filter_truncate(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("truncate", arguments, {"length", "killwords", "end", "leeway"}, 0);
  const Int length = bound.int_or(0, 255);
  const std::string end = bound.string_or(2, "...");
  const Int end_length = static_cast<Int>(code_length(end));
  const bool default_leeway = !bound.get(3) || bound.get(3)->is_none();
  const Int leeway = default_leeway ? 5 : bound.int_or(3, 5);
  if (length < end_length) {
    fail_value("expected length >= " + format_int(end_length) + ", got " + format_int(length));
  }
  if (leeway < 0) fail_value("expected leeway >= 0, got " + format_int(leeway));
  if (length_of(value) <= length + leeway) return value;
  const std::string& text = expect_string(value);
  std::string cut = text.substr(0, byte_offset(text, static_cast<size_t>(length - end_length)));
  if (!bound.bool_or(1, false)) {
    if (const size_t space = cut.rfind(' '); space != std::string::npos) cut.resize(space);
  }
  return result(runtime, cut + end, value.as_text().safe);
}

Value filter_word_count(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("wordcount", arguments, {}, 0);
  Int words = 0;
  bool inside = false;
  for (const uint32_t code : decode_all(soft_string(runtime, value).text)) {
    const bool letter = code == '_' || is_alnum(code);
    if (letter && !inside) ++words;
    inside = letter;
  }
  return Value::integer(words);
}

std::string percent_encode(std::string_view text, bool for_query) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("_.-~").find(c) != std::string_view::npos ||
                       (c == '/' && !for_query);
    if (plain) {
      out += c;
    } else if (c == ' ' && for_query) {
      out += '+';
    } else {
      out += '%';
      out += kHex[static_cast<unsigned char>(c) >> 4];
      out += kHex[static_cast<unsigned char>(c) & 15];
    }
  }
  return out;
}

Value filter_url_encode(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("urlencode", arguments, {}, 0);
  Budget& budget = runtime.budget;
  if (value.is_string() || !is_iterable(value)) {
    return result(runtime, percent_encode(to_str(value, budget), false));
  }
  std::string out;
  const auto append = [&](const Value& key, const Value& item) {
    if (!out.empty()) out += '&';
    out += percent_encode(to_str(key, budget), true) + "=" +
           percent_encode(to_str(item, budget), true);
    if (out.size() > budget.limits().max_string_bytes) budget.charge_string(out.size());
  };
  if (value.is(Object::Type::kDict)) {
    for (const auto& [key, item] : static_cast<const Dict*>(value.as_object())->entries()) {
      append(key, item);
    }
  } else {
    for (const Value& pair : iterate(value, budget)) {
      const Values parts = iterate(pair, budget);
      if (parts.size() != 2) fail_value("expected pairs of key and value");
      append(parts[0], parts[1]);
    }
  }
  return result(runtime, std::move(out));
}

/// Text without <tags> and comments, white space collapsed, entities resolved.
Value filter_strip_tags(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("striptags", arguments, {}, 0);
  std::string text = to_str(value, runtime.budget);
  const auto remove = [&](std::string_view open, std::string_view close) {
    std::string kept;
    size_t pos = 0;
    while (true) {
      const size_t start = text.find(open, pos);
      const size_t end = start == std::string::npos ? start : text.find(close, start + open.size());
      if (end == std::string::npos) break;
      kept += text.substr(pos, start - pos);
      pos = end + close.size();
    }
    text = kept + text.substr(pos);
  };
  remove("<!--", "-->");
  remove("<", ">");
  std::string out;
  std::string_view rest = strip_right(strip_left(text));
  bool space = false;
  for (size_t pos = 0; pos < rest.size();) {
    const CodePoint point = decode(rest, pos);
    if (is_space(point.code)) {
      space = true;
    } else {
      if (space) out += ' ';
      space = false;
      out += rest.substr(pos, point.size_bytes);
    }
    pos += point.size_bytes;
  }
  constexpr std::pair<std::string_view, std::string_view> kEntities[] = {
      {"&lt;", "<"},   {"&gt;", ">"},  {"&quot;", "\""},
      {"&#34;", "\""}, {"&#39;", "'"}, {"&amp;", "&"}};
  for (const auto& [entity, character] : kEntities) {
    out = replace_text(out, entity, character, -1, runtime.budget);
  }
  return result(runtime, std::move(out));
}

Value filter_file_size(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("filesizeformat", arguments, {"binary"}, 0);
  const bool binary = bound.bool_or(0, false);
  const std::optional<double> given = value.is_number()
                                          ? std::optional(value.as_double())
                                          : parse_float(value.is_string() ? value.as_string() : "");
  if (value.is_undefined()) fail_undefined(value);
  if (!given && !value.is_string()) {
    fail_type("float() argument must be a string or a real number, not '" + type_name(value) + "'");
  }
  if (!given) fail_value("could not convert string to float: " + repr(value, runtime.budget));
  const double base = binary ? 1024 : 1000;
  if (*given == 1) return result(runtime, "1 Byte");
  if (*given < base) return result(runtime, format_fixed(std::trunc(*given), 0) + " Bytes");
  constexpr std::string_view kLetters = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0; i < kLetters.size(); ++i) {
    unit *= base;
    if (*given >= unit && i + 1 < kLetters.size()) continue;
    std::string prefix(1, kLetters[i]);
    if (binary) prefix = to_upper(prefix) + "i";
    return result(runtime, format_fixed(base * *given / unit, 1) + " " + prefix + "B");
  }
  return {};
}

Value filter_default(Runtime& /*runtime*/, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("default", arguments, {"default_value", "boolean"}, 0);
  const bool replace = value.is_undefined() || (bound.bool_or(1, false) && !truthy(value));
  return replace ? bound.value_or(0, Value::string("")) : value;
}

/// int(value) in Python, or nothing where it raises TypeError or ValueError.
std::optional<Int> plain_int(const Value& value, Int base) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_string()) return parse_int(value.as_string(), base);
  if (value.is_integral()) return value.as_int();
  if (!value.is_float() || std::isnan(value.as_double())) return std::nullopt;
  const double whole = std::trunc(value.as_double());
  if (!(std::fabs(whole) < 8.5e37)) {
    throw JinjaError(ErrorKind::kLimit, "cannot convert so large a float to an integer");
  }
  return static_cast<Int>(whole);
}

Value filter_int(Runtime& /*runtime*/, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("int", arguments, {"default", "base"}, 0);
  const Int base = bound.int_or(1, 10);
  if (const std::optional<Int> parsed = plain_int(value, base)) return Value::integer(*parsed);
  if (value.is_string()) {
    const std::optional<double> real = parse_float(value.as_string());
    if (real && std::isfinite(*real) && std::fabs(*real) < 8.5e37) {
      return Value::integer(static_cast<Int>(*real));
    }
  }
  return bound.value_or(0, Value::integer(0));
}

Value filter_float(Runtime& /*runtime*/, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("float", arguments, {"default"}, 0);
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_number()) return Value::real(value.as_double());
  if (value.is_string()) {
    if (const auto parsed = parse_float(value.as_string())) return Value::real(*parsed);
  }
  return bound.value_or(0, Value::real(0));
}

Value filter_abs(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments none("abs", arguments, {}, 0);
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) fail_type("bad operand type for abs(): '" + type_name(value) + "'");
  if (value.is_float()) return Value::real(std::fabs(value.as_double()));
  const bool negative = value.as_int() < 0;
  return arithmetic(Arithmetic::kMultiply, Value::integer(value.as_int()),
                    Value::integer(negative ? -1 : 1), runtime.budget);
}

/// round() of a float: half to even on the exact value.
double round_float(double value, Int precision) {
  if (!std::isfinite(value) || precision > 320) return value;
  if (precision >= 0) {
    return std::strtod(format_fixed(value, static_cast<int>(precision)).c_str(), nullptr);
  }
  if (precision < -310) return std::copysign(0.0, value);
  const double scale = std::pow(10.0, static_cast<double>(-precision));
  return std::nearbyint(value / scale) * scale;
}

Int round_int(Int value, Int precision) {
  if (precision >= 0) return value;
  if (precision < -38) return 0;
  Int scale = 1;
  for (Int i = precision; i < 0; ++i)
    scale *= 10;
  const Int rest = ((value % scale) + scale) % scale;
  const Int lower = value - rest;
  const bool up = rest > scale - rest || (rest == scale - rest && (lower / scale) % 2 != 0);
  return up ? lower + scale : lower;
}

Value filter_round(Runtime& /*runtime*/, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("round", arguments, {"precision", "method"}, 0);
  const Int precision = bound.int_or(0, 0);
  const std::string method = bound.string_or(1, "common");
  if (method != "common" && method != "ceil" && method != "floor") {
    fail_value("method must be common, ceil or floor");
  }
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_number()) {
    fail_type("type " + type_name(value) + " doesn't define __round__ method");
  }
  if (value.is_integral() && value.as_int() > -(Int{1} << 100) && value.as_int() < Int{1} << 100) {
    if (method == "common") return Value::integer(round_int(value.as_int(), precision));
  }
  const double given = value.as_double();
  if (method == "common") return Value::real(round_float(given, precision));
  const double scale = std::pow(10.0, static_cast<double>(precision));
  const double scaled = given * scale;
  if (!std::isfinite(scaled) || scale == 0) fail_value("cannot round so large a number");
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale);
}

Value filter_to_json(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("tojson", arguments,
                             {"ensure_ascii", "indent", "separators", "sort_keys"}, 0);
  JsonStyle style;
  style.ensure_ascii = bound.bool_or(0, false);
  style.sort_keys = bound.bool_or(3, false);
  if (const Value* indent = bound.get(1); indent && !indent->is_none()) {
    if (indent->is_string()) {
      style.indent = indent->as_string();
    } else {
      const Int width = std::clamp<Int>(bound.int_or(1, 0), 0, 1000);
      style.indent = std::string(static_cast<size_t>(width), ' ');
    }
    style.item_separator = ",";
  }
  if (const Value* separators = bound.get(2); separators && !separators->is_none()) {
    const Values parts = iterate(*separators, runtime.budget);
    if (parts.size() != 2) fail_value("separators must be a pair of strings");
    style.item_separator = expect_string(parts[0]);
    style.key_separator = expect_string(parts[1]);
  }
  return Value::string(to_json(value, style, runtime.budget));
}

Value filter_attr(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("attr", arguments, {"name"}, 1);
  const std::string name = bound.string_or(0, "");
  // Attributes only: the item of that name doesn't count.
  if (value.is(Object::Type::kDict) && !has_method(value, name) &&
      !is_mutating_method(value, name)) {
    return missing(value, *bound.get(0), runtime.budget);
  }
  return get_attribute(value, name, runtime.budget);
}

constexpr NamedFilter kFilters[] = {
    {"upper", change_text<to_upper>},
    {"lower", change_text<to_lower>},
    {"capitalize", change_text<capitalize>},
    {"title", change_text<title_words>},
    {"trim", filter_trim},
    {"replace", filter_replace},
    {"string", filter_string},
    {"safe", filter_safe},
    {"escape", filter_escape},
    {"e", filter_escape},
    {"forceescape", filter_force_escape},
    {"indent", filter_indent},
    {"center", filter_center},
    {"format", filter_format},
    {"truncate", filter_truncate},
    {"wordcount", filter_word_count},
    {"urlencode", filter_url_encode},
    {"striptags", filter_strip_tags},
    {"filesizeformat", filter_file_size},
    {"default", filter_default},
    {"d", filter_default},
    {"int", filter_int},
    {"float", filter_float},
    {"abs", filter_abs},
    {"round", filter_round},
    {"tojson", filter_to_json},
    {"attr", filter_attr},
};

/// Value of a digit in any base up to 36, or 99.
Int digit_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'z') return c - 'a' + 10;
  if (c >= 'A' && c <= 'Z') return c - 'A' + 10;
  return 99;
}

}  // namespace

std::optional<Int> parse_int(std::string_view text, Int base) {
  if (base != 0 && (base < 2 || base > 36)) fail_value("int() base must be >= 2 and <= 36, or 0");
  text = strip_right(strip_left(text));
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  const auto prefixed = [&](char letter, Int prefix_base) {
    if (text.size() < 2 || text[0] != '0' || (text[1] | 0x20) != letter) return false;
    if (base != 0 && base != prefix_base) return false;
    base = prefix_base;
    text.remove_prefix(2);
    if (text.starts_with('_')) text.remove_prefix(1);
    return true;
  };
  if (!prefixed('x', 16) && !prefixed('o', 8) && !prefixed('b', 2) && base == 0) {
    // Without a prefix a leading zero is allowed for zero only.
    if (text.size() > 1 && text[0] == '0' && text.find_first_not_of("0_") != text.npos) {
      return std::nullopt;
    }
    base = 10;
  }
  Int number = 0;
  bool after_digit = false;
  for (const char c : text) {
    if (c == '_' && after_digit) {
      after_digit = false;
      continue;
    }
    const Int digit = digit_value(c);
    if (digit >= base) return std::nullopt;
    if (number > (Int{1} << 120) / base) {
      throw JinjaError(ErrorKind::kLimit, "integer too large: templates may use up to 120 bits");
    }
    number = number * base + digit;
    after_digit = true;
  }
  if (!after_digit) return std::nullopt;
  return negative ? -number : number;
}

std::optional<double> parse_float(std::string_view text) {
  text = strip_right(strip_left(text));
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    const auto is_number = [&](size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '9';
    };
    if (text[i] == '_') {
      if (i == 0 || !is_number(i - 1) || !is_number(i + 1)) return std::nullopt;
      continue;
    }
    plain += text[i];
  }
  std::string_view number = plain;
  const bool negative = number.starts_with('-');
  if (negative || number.starts_with('+')) number.remove_prefix(1);
  if (number.empty()) return std::nullopt;
  const std::string word = to_lower(number);
  double value = 0;
  if (word == "inf" || word == "infinity") {
    value = HUGE_VAL;
  } else if (word == "nan") {
    value = std::nan("");
  } else {
    if (word.find_first_not_of("0123456789.e+-") != std::string::npos) return std::nullopt;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    if (end != number.data() + number.size() || number[0] == '-') return std::nullopt;
    if (error == std::errc::result_out_of_range) value = std::strtod(plain.c_str(), nullptr);
    if (error == std::errc::result_out_of_range) return value;
    if (error != std::errc()) return std::nullopt;
  }
  return negative ? -value : value;
}

FilterBody find_filter(std::string_view name) {
  for (const NamedFilter& filter : kFilters) {
    if (filter.name == name) return filter.body;
  }
  for (const NamedFilter& filter : sequence_filters()) {
    if (filter.name == name) return filter.body;
  }
  return nullptr;
}

}  // namespace dsctl::templates::jinja
