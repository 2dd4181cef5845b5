// The methods of Python's str.
#include <algorithm>
#include <array>

#include "templates/jinja/callable.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/string_format.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

constexpr size_t kNone = std::string_view::npos;

/// A call of one method: what its implementation needs.
struct Call {
  Runtime& runtime;
  const std::string& text;
  std::string_view name;
  const Arguments& arguments;

  BoundArguments bind(std::initializer_list<std::string_view> names, size_t n_required) const {
    return BoundArguments(name, arguments, names, n_required);
  }
  Value string(std::string result) const { return make_string(runtime.budget, std::move(result)); }
  Value list(Values items) const { return make_list(runtime.budget, std::move(items)); }
};

/// A search from the end compares at every place: long needles must be paid for.
void charge_backward(Budget& budget, std::string_view text, std::string_view wanted) {
  if (wanted.size() > 16) budget.charge_steps(text.size() * wanted.size() / 1024);
}

Value change_case(const Call& call) {
  const auto bound = call.bind({}, 0);
  call.runtime.budget.charge_string(call.text.size());
  if (call.name == "upper") return call.string(to_upper(call.text));
  if (call.name == "lower" || call.name == "casefold") return call.string(to_lower(call.text));
  if (call.name == "title") return call.string(to_title(call.text));
  if (call.name == "swapcase") return call.string(swap_case(call.text));
  return call.string(capitalize(call.text));
}

Value strip(const Call& call) {
  const auto bound = call.bind({"chars"}, 0);
  std::string_view text = call.text;
  const bool left = call.name != "rstrip";
  const bool right = call.name != "lstrip";
  if (!bound.get(0) || bound.get(0)->is_none()) {
    if (left) text = strip_left(text);
    if (right) text = strip_right(text);
  } else {
    const std::string chars = bound.string_or(0, "");
    call.runtime.budget.charge_steps(chars.size() * call.text.size() / 1024);
    if (left) text = strip_left(text, chars);
    if (right) text = strip_right(text, chars);
  }
  return call.string(std::string(text));
}

Values split_on_space(std::string_view text, Int max_splits, Budget& budget) {
  Values parts;
  text = strip_left(text);
  while (!text.empty()) {
    budget.charge_items(1);
    if (max_splits >= 0 && static_cast<Int>(parts.size()) >= max_splits) {
      parts.push_back(Value::string(std::string(strip_right(text))));
      break;
    }
    size_t end = 0;
    while (end < text.size() && !is_space(decode(text, end).code)) {
      end += decode(text, end).size_bytes;
    }
    parts.push_back(Value::string(std::string(text.substr(0, end))));
    text = strip_left(text.substr(end));
  }
  return parts;
}

/// From the right, the parts come out backwards.
Values rsplit_on_space(std::string_view text, Int max_splits, Budget& budget) {
  Values parts;
  text = strip_right(text);
  const std::vector<uint32_t> codes = decode_all(text);
  size_t end = codes.size();
  const auto join = [&](size_t first, size_t last) {
    std::string part;
    for (size_t i = first; i < last; ++i)
      append_code(part, codes[i]);
    return Value::string(std::move(part));
  };
  while (end > 0) {
    budget.charge_items(1);
    if (max_splits >= 0 && static_cast<Int>(parts.size()) >= max_splits) {
      size_t first = 0;
      while (first < end && is_space(codes[first]))
        ++first;
      parts.push_back(join(first, end));
      break;
    }
    size_t start = end;
    while (start > 0 && !is_space(codes[start - 1]))
      --start;
    parts.push_back(join(start, end));
    while (start > 0 && is_space(codes[start - 1]))
      --start;
    end = start;
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

Value split(const Call& call) {
  const auto bound = call.bind({"sep", "maxsplit"}, 0);
  const Int max_splits = bound.int_or(1, -1);
  Budget& budget = call.runtime.budget;
  budget.charge_string(call.text.size());
  const bool from_right = call.name == "rsplit";
  if (!bound.get(0) || bound.get(0)->is_none()) {
    return call.list(from_right ? rsplit_on_space(call.text, max_splits, budget)
                                : split_on_space(call.text, max_splits, budget));
  }
  const std::string separator = bound.string_or(0, "");
  if (separator.empty()) fail_value("empty separator");
  std::string_view rest = call.text;
  Values parts;
  while (max_splits < 0 || static_cast<Int>(parts.size()) < max_splits) {
    budget.charge_items(1);
    if (from_right) charge_backward(budget, rest, separator);
    const size_t found = from_right ? rest.rfind(separator) : find_text(rest, separator, 0);
    if (found == kNone) break;
    const std::string_view before = rest.substr(0, found);
    const std::string_view after = rest.substr(found + separator.size());
    parts.push_back(Value::string(std::string(from_right ? after : before)));
    rest = from_right ? before : after;
  }
  parts.push_back(Value::string(std::string(rest)));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return call.list(std::move(parts));
}

Value split_into_lines(const Call& call) {
  const auto bound = call.bind({"keepends"}, 0);
  call.runtime.budget.charge_string(call.text.size());
  Values lines;
  for (const std::string_view line : split_lines(call.text, bound.bool_or(0, false))) {
    call.runtime.budget.charge_items(1);
    lines.push_back(Value::string(std::string(line)));
  }
  return call.list(std::move(lines));
}

Value partition(const Call& call) {
  const auto bound = call.bind({"sep"}, 1);
  const std::string separator = bound.string_or(0, "");
  if (separator.empty()) fail_value("empty separator");
  const bool from_right = call.name == "rpartition";
  if (from_right) charge_backward(call.runtime.budget, call.text, separator);
  const size_t found = from_right ? call.text.rfind(separator) : find_text(call.text, separator, 0);
  std::array<std::string, 3> parts;
  if (found == kNone) {
    parts[from_right ? 2 : 0] = call.text;
  } else {
    parts = {call.text.substr(0, found), separator, call.text.substr(found + separator.size())};
  }
  return make_tuple(call.runtime.budget,
                    {call.string(parts[0]), call.string(parts[1]), call.string(parts[2])});
}

/// The part of the text that (start, stop) select, in bytes; nothing when start is past the end.
struct Window {
  std::string_view text;
  size_t offset;
};

std::optional<Window> window(const Call& call, const BoundArguments& bound) {
  const auto given = [&](size_t index) { return bound.get(index) && !bound.get(index)->is_none(); };
  if (!given(1) && !given(2)) return Window{call.text, 0};
  const Int length = static_cast<Int>(code_length(call.text));
  call.runtime.budget.charge_steps(call.text.size() / 16);
  const auto clamp = [&](Int index) {
    return index < 0 ? std::max<Int>(index + length, 0) : index;
  };
  const Int start = given(1) ? clamp(bound.int_or(1, 0)) : 0;
  const Int stop = given(2) ? std::min(clamp(bound.int_or(2, 0)), length) : length;
  if (start > length || start > stop) return std::nullopt;
  const size_t first = byte_offset(call.text, static_cast<size_t>(start));
  const size_t last = byte_offset(call.text, static_cast<size_t>(stop));
  return Window{std::string_view(call.text).substr(first, last - first), first};
}

Value find(const Call& call) {
  const auto bound = call.bind({"sub", "start", "end"}, 1);
  const std::string wanted = bound.string_or(0, "");
  const std::optional<Window> part = window(call, bound);
  const bool last = call.name[0] == 'r';
  call.runtime.budget.charge_steps(call.text.size() / 64);
  size_t found = kNone;
  if (part && last) charge_backward(call.runtime.budget, part->text, wanted);
  if (part) found = last ? part->text.rfind(wanted) : find_text(part->text, wanted, 0);
  if (found == kNone) {
    if (call.name.ends_with("index")) fail_value("substring not found");
    return Value::integer(-1);
  }
  const std::string_view before = std::string_view(call.text).substr(0, part->offset + found);
  return Value::integer(static_cast<Int>(code_length(before)));
}

Value count(const Call& call) {
  const auto bound = call.bind({"sub", "start", "end"}, 1);
  const std::string wanted = bound.string_or(0, "");
  const std::optional<Window> part = window(call, bound);
  call.runtime.budget.charge_steps(call.text.size() / 16);
  if (!part) return Value::integer(0);
  if (wanted.empty()) return Value::integer(static_cast<Int>(code_length(part->text)) + 1);
  Int n_found = 0;
  for (size_t pos = find_text(part->text, wanted, 0); pos != kNone;
       pos = find_text(part->text, wanted, pos + wanted.size())) {
    ++n_found;
  }
  return Value::integer(n_found);
}

Value starts_or_ends(const Call& call) {
  const auto bound = call.bind({"prefix", "start", "end"}, 1);
  const bool start = call.name == "startswith";
  const Value& wanted = *bound.get(0);
  if (wanted.is_undefined()) fail_undefined(wanted);
  if (!wanted.is_string() && !wanted.is(Object::Type::kTuple)) {
    fail_type(std::string(call.name) + " first arg must be str or a tuple of str, not " +
              type_name(wanted));
  }
  const Values options = wanted.is_string() ? Values{wanted} : iterate(wanted, call.runtime.budget);
  const std::optional<Window> part = window(call, bound);
  for (const Value& option : options) {
    if (!option.is_string()) {
      fail_type("tuple for " + std::string(call.name) + " must only contain str, not " +
                type_name(option));
    }
    if (!part) continue;
    if (start ? part->text.starts_with(option.as_string())
              : part->text.ends_with(option.as_string())) {
      return Value::boolean(true);
    }
  }
  return Value::boolean(false);
}

Value remove_affix(const Call& call) {
  const auto bound = call.bind({"affix"}, 1);
  const std::string affix = bound.string_or(0, "");
  const std::string_view text = call.text;
  if (call.name == "removeprefix") {
    return call.string(std::string(text.starts_with(affix) ? text.substr(affix.size()) : text));
  }
  const size_t rest = text.size() - affix.size();
  return call.string(std::string(text.ends_with(affix) ? text.substr(0, rest) : text));
}

Value replace(const Call& call) {
  const auto bound = call.bind({"old", "new", "count"}, 2);
  const std::string old_text = bound.string_or(0, "");
  const std::string new_text = bound.string_or(1, "");
  return call.string(
      replace_text(call.text, old_text, new_text, bound.int_or(2, -1), call.runtime.budget));
}

Value join(const Call& call) {
  const auto bound = call.bind({"iterable"}, 1);
  Budget& budget = call.runtime.budget;
  if (!is_iterable(*bound.get(0))) fail_type("can only join an iterable");
  std::string joined;
  size_t index = 0;
  for (const Value& item : iterate(*bound.get(0), budget)) {
    if (!item.is_string()) {
      fail_type("sequence item " + std::to_string(index) + ": expected str instance, " +
                type_name(item) + " found");
    }
    if (index++ > 0) joined += call.text;
    joined += item.as_string();
    if (joined.size() > budget.limits().max_string_bytes) budget.charge_string(joined.size());
  }
  return call.string(std::move(joined));
}

Value pad(const Call& call) {
  const auto bound = call.bind({"width", "fillchar"}, 1);
  const Int width = bound.int_or(0, 0);
  const std::string fill = call.name == "zfill" ? "0" : bound.string_or(1, " ");
  if (code_length(fill) != 1) {
    fail_type("the fill character must be exactly one character long");
  }
  const Int missing = width - static_cast<Int>(code_length(call.text));
  if (missing <= 0) return call.string(call.text);
  Budget& budget = call.runtime.budget;
  const Int limit = static_cast<Int>(budget.limits().max_string_bytes);
  budget.charge_string(static_cast<size_t>(std::min(missing * 4, limit + 1)));
  const auto filler = [&](Int n_codes) {
    std::string filled;
    for (Int i = 0; i < n_codes; ++i)
      filled += fill;
    return filled;
  };
  if (call.name == "ljust") return call.string(call.text + filler(missing));
  if (call.name == "rjust") return call.string(filler(missing) + call.text);
  if (call.name == "zfill") {
    const bool sign = !call.text.empty() && (call.text[0] == '+' || call.text[0] == '-');
    return call.string(call.text.substr(0, sign ? 1 : 0) + filler(missing) +
                       call.text.substr(sign ? 1 : 0));
  }
  // CPython gives the odd column to the left when the width is odd.
  const Int left = missing / 2 + (missing & width & 1);
  return call.string(filler(left) + call.text + filler(missing - left));
}

Value expand_tabs(const Call& call) {
  const auto bound = call.bind({"tabsize"}, 0);
  const Int tab = std::min<Int>(bound.int_or(0, 8), 1000);
  std::string out;
  Int column = 0;
  for (const uint32_t code : decode_all(call.text)) {
    if (code == '\t') {
      const Int fill = tab > 0 ? tab - column % tab : 0;
      out.append(static_cast<size_t>(fill), ' ');
      column += fill;
    } else {
      append_code(out, code);
      column = code == '\n' || code == '\r' ? 0 : column + 1;
    }
    if (out.size() > call.runtime.budget.limits().max_string_bytes) break;
  }
  return call.string(std::move(out));
}

template <typename Predicate>
bool all_codes(const Call& call, Predicate holds) {
  if (call.text.empty()) return false;
  for (size_t pos = 0; pos < call.text.size();) {
    const CodePoint point = decode(call.text, pos);
    if (!holds(point.code)) return false;
    pos += point.size_bytes;
  }
  return true;
}

bool is_title_text(const Call& call) {
  bool inside_word = false;
  bool found = false;
  for (const uint32_t code : decode_all(call.text)) {
    if (is_upper(code) || is_title(code)) {
      if (inside_word) return false;
      inside_word = true;
      found = true;
    } else if (is_lower(code)) {
      if (!inside_word) return false;
      found = true;
    } else {
      inside_word = false;
    }
  }
  return found;
}

bool is_identifier(const Call& call) {
  bool first = true;
  const bool ok = all_codes(call, [&](uint32_t code) {
    const bool start = code == '_' || is_alpha(code);
    const bool fits = start || (!first && is_alnum(code));
    first = false;
    return fits;
  });
  return ok;
}

Value classify(const Call& call) {
  const auto bound = call.bind({}, 0);
  const std::string_view kind = call.name.substr(2);
  call.runtime.budget.charge_steps(call.text.size() / 16);
  bool result = false;
  if (kind == "alpha") result = all_codes(call, is_alpha);
  if (kind == "alnum") result = all_codes(call, is_alnum);
  if (kind == "digit") result = all_codes(call, is_digit);
  if (kind == "decimal") result = all_codes(call, is_decimal);
  if (kind == "numeric") result = all_codes(call, is_numeric);
  if (kind == "space") result = all_codes(call, is_space);
  if (kind == "ascii") result = is_ascii(call.text);
  if (kind == "printable") result = call.text.empty() || all_codes(call, is_printable);
  if (kind == "title") result = is_title_text(call);
  if (kind == "identifier") result = is_identifier(call);
  if (kind == "lower") result = is_lower_text(call.text);
  if (kind == "upper") result = is_upper_text(call.text);
  return Value::boolean(result);
}

Value format(const Call& call) {
  return call.string(format_braces(call.text, call.arguments, call.runtime.budget));
}

Value format_map(const Call& call) {
  const auto bound = call.bind({"mapping"}, 1);
  if (!bound.get(0)->is(Object::Type::kDict)) fail_type("format_map() takes a mapping");
  Arguments named;
  for (const auto& [key, value] : static_cast<const Dict*>(bound.get(0)->as_object())->entries()) {
    if (key.is_string()) named.keywords.emplace_back(key.as_string(), value);
  }
  return call.string(format_braces(call.text, named, call.runtime.budget));
}

struct Method {
  std::string_view name;
  Value (*body)(const Call& call);
};

constexpr Method kMethods[] = {
    {"upper", change_case},
    {"lower", change_case},
    {"casefold", change_case},
    {"title", change_case},
    {"swapcase", change_case},
    {"capitalize", change_case},
    {"strip", strip},
    {"lstrip", strip},
    {"rstrip", strip},
    {"split", split},
    {"rsplit", split},
    {"splitlines", split_into_lines},
    {"partition", partition},
    {"rpartition", partition},
    {"find", find},
    {"rfind", find},
    {"index", find},
    {"rindex", find},
    {"count", count},
    {"startswith", starts_or_ends},
    {"endswith", starts_or_ends},
    {"removeprefix", remove_affix},
    {"removesuffix", remove_affix},
    {"replace", replace},
    {"join", join},
    {"center", pad},
    {"ljust", pad},
    {"rjust", pad},
    {"zfill", pad},
    {"expandtabs", expand_tabs},
    {"isalpha", classify},
    {"isalnum", classify},
    {"isdigit", classify},
    {"isdecimal", classify},
    {"isnumeric", classify},
    {"isspace", classify},
    {"isascii", classify},
    {"isprintable", classify},
    {"istitle", classify},
    {"isidentifier", classify},
    {"islower", classify},
    {"isupper", classify},
    {"format", format},
    {"format_map", format_map},
};

/// What a method of markup returns is markup too, also in a list of parts.
Value as_markup(Runtime& runtime, const Value& result) {
  if (result.is_string()) return Value::markup(result.as_string());
  const bool list = result.is(Object::Type::kList);
  if (!list && !result.is(Object::Type::kTuple)) return result;
  Values parts;
  for (const Value& part : iterate(result, runtime.budget)) {
    parts.push_back(as_markup(runtime, part));
  }
  return list ? make_list(runtime.budget, std::move(parts))
              : make_tuple(runtime.budget, std::move(parts));
}

const Method* find_method(std::string_view name) {
  for (const Method& method : kMethods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace

bool is_lower_text(std::string_view text) {
  bool found = false;
  for (const uint32_t code : decode_all(text)) {
    if (is_upper(code) || is_title(code)) return false;
    found = found || is_lower(code);
  }
  return found;
}

bool is_upper_text(std::string_view text) {
  bool found = false;
  for (const uint32_t code : decode_all(text)) {
    if (is_lower(code) || is_title(code)) return false;
    found = found || is_upper(code);
  }
  return found;
}

std::string replace_text(std::string_view text, std::string_view old_text,
                         std::string_view new_text, Int max_count, Budget& budget) {
  std::string out;
  const auto append = [&](std::string_view part) {
    out += part;
    if (out.size() > budget.limits().max_string_bytes) budget.charge_string(out.size());
  };
  budget.charge_steps(text.size() / 16);
  size_t pos = 0;
  for (Int done = 0; max_count < 0 || done < max_count; ++done) {
    if (old_text.empty()) {
      // Between all characters, and at both ends.
      append(new_text);
      if (pos == text.size()) return out;
      const size_t size = decode(text, pos).size_bytes;
      append(text.substr(pos, size));
      pos += size;
      continue;
    }
    const size_t found = find_text(text, old_text, pos);
    if (found == kNone) break;
    append(text.substr(pos, found - pos));
    append(new_text);
    pos = found + old_text.size();
  }
  append(text.substr(pos));
  return out;
}

bool is_string_method(std::string_view name) {
  return find_method(name) != nullptr;
}

Value call_string_method(Runtime& runtime, const Value& self, std::string_view name,
                         const Arguments& arguments) {
  runtime.budget.charge_steps(1 + self.as_string().size() / 64);
  const Method* method = find_method(name);
  const Value result = method->body({runtime, self.as_string(), name, arguments});
  return self.as_text().safe ? as_markup(runtime, result) : result;
}

}  // namespace dsctl::templates::jinja
