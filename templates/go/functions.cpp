#include "templates/go/functions.h"

#include <cstdio>
#include <optional>

#include "templates/error.h"

namespace dsctl::templates::go {
namespace {

[[noreturn]] void fail(const std::string& message) {
  throw Error(message);
}

void need_arguments(std::span<const Value> arguments, size_t at_least, const char* name) {
  if (arguments.size() < at_least) {
    fail("wrong number of args for " + std::string(name) + ": want at least " +
         std::to_string(at_least) + " got " + std::to_string(arguments.size()));
  }
}

Value length(std::span<const Value> arguments) {
  need_arguments(arguments, 1, "len");
  const Value& value = arguments[0];
  size_t n = 0;
  if (value.is_nil()) fail("len of nil pointer");
  if (const std::string* text = value.as_string()) {
    n = text->size();
  } else if (const List* list = value.as_list()) {
    n = list->items.size();
  } else if (const Map* map = value.as_map()) {
    n = map->items.size();
  } else {
    fail("len of type " + value.type_name());
  }
  return Value(static_cast<int64_t>(n));
}

/// `value` as an index below `limit` (with `limit` itself when `inclusive`).
size_t checked_index(const Value& value, size_t limit, bool inclusive) {
  const int64_t* index = value.as_int();
  if (!index) fail("cannot index slice/array with type " + value.type_name());
  const bool inside = *index >= 0 && (static_cast<size_t>(*index) < limit ||
                                      (inclusive && static_cast<size_t>(*index) == limit));
  if (!inside) fail("index out of range: " + std::to_string(*index));
  return static_cast<size_t>(*index);
}

Value index(std::span<const Value> arguments) {
  need_arguments(arguments, 1, "index");
  Value value = arguments[0];
  if (value.is_nil()) fail("index of untyped nil");
  for (const Value& key : arguments.subspan(1)) {
    if (const List* list = value.as_list()) {
      value = Value(list->items[checked_index(key, list->items.size(), false)]);
    } else if (const std::string* text = value.as_string()) {
      value = Value(static_cast<int64_t>(
          static_cast<unsigned char>((*text)[checked_index(key, text->size(), false)])));
    } else if (const Map* map = value.as_map()) {
      const std::string* name = key.as_string();
      if (!name) fail("value has type " + key.type_name() + "; should be string");
      const auto found = map->items.find(*name);
      value = found == map->items.end() ? Value() : Value(found->second);
    } else if (value.is_nil()) {
      fail("index of nil pointer");
    } else {
      fail("can't index item of type " + value.type_name());
    }
  }
  return value;
}

Value slice(std::span<const Value> arguments) {
  need_arguments(arguments, 1, "slice");
  const Value& value = arguments[0];
  if (value.is_nil()) fail("slice of untyped nil");
  if (arguments.size() > 4) fail("too many slice indexes: " + std::to_string(arguments.size() - 1));
  const std::string* text = value.as_string();
  const List* list = value.as_list();
  if (!text && !list) fail("can't slice item of type " + value.type_name());
  if (text && arguments.size() == 4) fail("cannot 3-index slice a string");
  const size_t size = text ? text->size() : list->items.size();
  const size_t begin = arguments.size() > 1 ? checked_index(arguments[1], size, true) : 0;
  const size_t end = arguments.size() > 2 ? checked_index(arguments[2], size, true) : size;
  if (begin > end) {
    fail("invalid slice index: " + std::to_string(begin) + " > " + std::to_string(end));
  }
  if (text) return Value(text->substr(begin, end - begin));
  List part;
  part.print = list->print == PrintForm::kText ? PrintForm::kGo : list->print;
  part.items.assign(list->items.begin() + static_cast<std::ptrdiff_t>(begin),
                    list->items.begin() + static_cast<std::ptrdiff_t>(end));
  return Value(std::move(part));
}

/// What the operands of a comparison are, after Go's basicKind.
enum class Basic { kNil, kBool, kInt, kFloat, kString };

Basic basic_kind(const Value& value) {
  if (value.is_nil()) return Basic::kNil;
  if (value.as_bool()) return Basic::kBool;
  if (value.as_int()) return Basic::kInt;
  if (value.as_float()) return Basic::kFloat;
  if (value.as_string()) return Basic::kString;
  // A type with one text (a JSON schema's "type") compares as that text.
  const List* list = value.as_list();
  if (list && list->print == PrintForm::kText) return Basic::kString;
  fail("invalid type for comparison");
}

const std::string& comparable_text(const Value& value) {
  const std::string* text = value.as_string();
  return text ? *text : value.as_list()->text;
}

bool equal(const Value& a, const Value& b) {
  const Basic kind = basic_kind(a);
  const Basic other = basic_kind(b);
  if (kind == Basic::kNil || other == Basic::kNil) return kind == other;
  if (kind != other) fail("incompatible types for comparison");
  switch (kind) {
    case Basic::kNil:
      return true;
    case Basic::kBool:
      return *a.as_bool() == *b.as_bool();
    case Basic::kInt:
      return *a.as_int() == *b.as_int();
    case Basic::kFloat:
      return *a.as_float() == *b.as_float();
    case Basic::kString:
      return comparable_text(a) == comparable_text(b);
  }
  return false;
}

bool less(const Value& a, const Value& b) {
  const Basic kind = basic_kind(a);
  if (kind != basic_kind(b)) fail("incompatible types for comparison");
  switch (kind) {
    case Basic::kNil:
    case Basic::kBool:
      fail("invalid type for comparison");
    case Basic::kInt:
      return *a.as_int() < *b.as_int();
    case Basic::kFloat:
      return *a.as_float() < *b.as_float();
    case Basic::kString:
      return comparable_text(a) < comparable_text(b);
  }
  return false;
}

Function comparison(const char* name, bool (*holds)(const Value&, const Value&)) {
  return [name, holds](std::span<const Value> arguments) {
    if (arguments.size() != 2) {
      fail("wrong number of args for " + std::string(name) + ": want 2 got " +
           std::to_string(arguments.size()));
    }
    return Value(holds(arguments[0], arguments[1]));
  };
}

Value equal_any(std::span<const Value> arguments) {
  if (arguments.size() < 2) fail("missing argument for comparison");
  for (const Value& other : arguments.subspan(1)) {
    if (equal(arguments[0], other)) return Value(true);
  }
  return Value(false);
}

/// fmt.Sprint: a space between operands when neither is a string.
std::string print(std::span<const Value> arguments) {
  std::string out;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const bool both_plain = i > 0 && !arguments[i].as_string() && !arguments[i - 1].as_string();
    if (both_plain) out += ' ';
    out += arguments[i].is_nil() ? "<nil>" : print_value(arguments[i]);
  }
  return out;
}

/// What the escaping functions work on: one string as it is, anything else as print shows it.
std::string evaluate_text(std::span<const Value> arguments) {
  if (arguments.size() == 1) {
    if (const std::string* text = arguments[0].as_string()) return *text;
  }
  return print(arguments);
}

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '\0':
        out += "\uFFFD";
        break;
      case '"':
        out += "&#34;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string escape_js(const std::string& text) {
  std::string out;
  char buffer[8];
  for (const char c : text) {
    switch (c) {
      case '\\':
        out += "\\\\";
        break;
      case '\'':
        out += "\\'";
        break;
      case '"':
        out += "\\\"";
        break;
      case '<':
        out += "\\u003C";
        break;
      case '>':
        out += "\\u003E";
        break;
      case '&':
        out += "\\u0026";
        break;
      case '=':
        out += "\\u003D";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          std::snprintf(buffer, sizeof(buffer), "\\u%04X", static_cast<unsigned>(c));
          out += buffer;
        } else {
          out += c;
        }
    }
  }
  return out;
}

std::string escape_url(const std::string& text) {
  std::string out;
  char buffer[4];
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z') ||
                       (byte >= 'A' && byte <= 'Z') || c == '-' || c == '_' || c == '.' || c == '~';
    if (plain) {
      out += c;
    } else if (c == ' ') {
      out += '+';
    } else {
      std::snprintf(buffer, sizeof(buffer), "%%%02X", byte);
      out += buffer;
    }
  }
  return out;
}

Function escaping(std::string (*escape)(const std::string&)) {
  return [escape](std::span<const Value> arguments) {
    return Value(escape(evaluate_text(arguments)));
  };
}

}  // namespace

FunctionMap builtin_functions() {
  FunctionMap functions;
  functions["len"] = length;
  functions["index"] = index;
  functions["slice"] = slice;
  functions["not"] = [](std::span<const Value> arguments) {
    need_arguments(arguments, 1, "not");
    return Value(!arguments[0].truth());
  };
  functions["eq"] = equal_any;
  functions["ne"] = comparison("ne", [](const Value& a, const Value& b) { return !equal(a, b); });
  functions["lt"] = comparison("lt", [](const Value& a, const Value& b) { return less(a, b); });
  functions["le"] =
      comparison("le", [](const Value& a, const Value& b) { return less(a, b) || equal(a, b); });
  functions["gt"] =
      comparison("gt", [](const Value& a, const Value& b) { return !less(a, b) && !equal(a, b); });
  functions["ge"] = comparison("ge", [](const Value& a, const Value& b) { return !less(a, b); });
  functions["print"] = [](std::span<const Value> arguments) { return Value(print(arguments)); };
  functions["println"] = [](std::span<const Value> arguments) {
    std::string out;
    for (const Value& value : arguments) {
      out += (out.empty() ? "" : " ") + (value.is_nil() ? "<nil>" : print_value(value));
    }
    return Value(out + "\n");
  };
  functions["printf"] = [](std::span<const Value> arguments) {
    need_arguments(arguments, 1, "printf");
    const std::string* verbs = arguments[0].as_string();
    if (!verbs) fail("wrong type for value; expected string; got " + arguments[0].type_name());
    return Value(format(*verbs, arguments.subspan(1)));
  };
  functions["html"] = escaping(escape_html);
  functions["js"] = escaping(escape_js);
  functions["urlquery"] = escaping(escape_url);
  functions["call"] = [](std::span<const Value> arguments) -> Value {
    need_arguments(arguments, 1, "call");
    if (arguments[0].is_nil()) fail("call of nil");
    fail("non-function of type " + arguments[0].type_name());
  };
  return functions;
}

}  // namespace dsctl::templates::go
