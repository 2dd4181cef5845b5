// str() and repr() of values, as Python writes them.
#include "templates/jinja/callable.h"
#include "templates/jinja/object_access.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

/// Appends repr and str of nested values to one string, which the budget watches as it grows.
class Printer {
 public:
  explicit Printer(Budget& budget) : budget_(budget) {}

  void print(const Value& value) {
    budget_.charge_steps(1);
    switch (value.kind()) {
      case Value::Kind::kNone:
        append("None");
        break;
      case Value::Kind::kUndefined:
        append("Undefined");
        break;
      case Value::Kind::kBool:
        append(value.as_bool() ? "True" : "False");
        break;
      case Value::Kind::kInt:
        append(format_int(value.as_int()));
        break;
      case Value::Kind::kFloat:
        append(format_float(value.as_double()));
        break;
      case Value::Kind::kString:
        if (value.as_text().safe) {
          append("Markup(" + repr_string(value.as_string()) + ")");
        } else {
          append(repr_string(value.as_string()));
        }
        break;
      case Value::Kind::kObject:
        print_object(value);
        break;
    }
  }

  std::string take() { return std::move(out_); }

 private:
  void append(std::string_view text) {
    budget_.charge_string(text.size());
    if (out_.size() + text.size() > budget_.limits().max_string_bytes) {
      throw JinjaError(ErrorKind::kLimit, "the template makes too long a string");
    }
    out_ += text;
  }

  void print_items(const Values& items) {
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) append(", ");
      print(items[i]);
    }
  }

  void print_dict(const Dict& dict) {
    append("{");
    bool first = true;
    for (const auto& [key, value] : dict.entries()) {
      if (!first) append(", ");
      first = false;
      print(key);
      append(": ");
      print(value);
    }
    append("}");
  }

  void print_view(const DictView& view) {
    append(view_name(view.part));
    append("([");
    bool first = true;
    for (const auto& [key, value] : view.dict->entries()) {
      if (!first) append(", ");
      first = false;
      const bool pair = view.part == DictView::Part::kItems;
      if (pair) append("(");
      if (view.part != DictView::Part::kValues) print(key);
      if (pair) append(", ");
      if (view.part != DictView::Part::kKeys) print(value);
      if (pair) append(")");
    }
    append("])");
  }

  void print_namespace(const Namespace& names) {
    // A namespace can hold itself.
    if (++namespaces_ > 20) {
      throw JinjaError(ErrorKind::kLimit, "the template prints a namespace inside itself");
    }
    append("<Namespace {");
    bool first = true;
    for (const auto& [name, value] : names.attributes) {
      if (!first) append(", ");
      first = false;
      append(repr_string(name) + ": ");
      print(value);
    }
    append("}>");
    --namespaces_;
  }

  void print_object(const Value& value) {
    switch (value.as_object()->type) {
      case Object::Type::kList:
        append("[");
        print_items(items_of(value));
        append("]");
        break;
      case Object::Type::kTuple:
        append("(");
        print_items(items_of(value));
        append(items_of(value).size() == 1 ? ",)" : ")");
        break;
      case Object::Type::kDict:
        print_dict(dict_of(value));
        break;
      case Object::Type::kDictView:
        print_view(view_of(value));
        break;
      case Object::Type::kRange: {
        const Range& range = range_of(value);
        append("range(" + format_int(range.start) + ", " + format_int(range.stop) +
               (range.step == 1 ? "" : ", " + format_int(range.step)) + ")");
        break;
      }
      case Object::Type::kIterator:
      case Object::Type::kSlice:
        append("<" + type_name(value) + " object>");
        break;
      case Object::Type::kNamespace:
        print_namespace(*static_cast<const Namespace*>(value.as_object()));
        break;
      case Object::Type::kOther:
        append(as_helper(value)->describe());
        break;
    }
  }

  Budget& budget_;
  std::string out_;
  int namespaces_ = 0;
};

}  // namespace

std::string to_str(const Value& value, Budget& budget) {
  if (value.is_string()) return value.as_string();
  if (value.is_undefined()) return "";
  return repr(value, budget);
}

std::string repr(const Value& value, Budget& budget) {
  Printer printer(budget);
  printer.print(value);
  return printer.take();
}

std::string repr_string(std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  const bool double_quotes =
      text.find('\'') != std::string_view::npos && text.find('"') == std::string_view::npos;
  const char quote = double_quotes ? '"' : '\'';
  std::string out(1, quote);
  const auto escape = [&](char letter, uint32_t code, int n_digits) {
    out += '\\';
    out += letter;
    for (int i = n_digits - 1; i >= 0; --i)
      out += kHex[code >> (4 * i) & 15];
  };
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint point = decode(text, pos);
    const std::string_view bytes = text.substr(pos, point.size_bytes);
    pos += point.size_bytes;
    if (point.code == static_cast<uint32_t>(quote) || point.code == '\\') {
      out += '\\';
      out += bytes;
    } else if (point.code == '\n') {
      out += "\\n";
    } else if (point.code == '\r') {
      out += "\\r";
    } else if (point.code == '\t') {
      out += "\\t";
    } else if (is_printable(point.code)) {
      out += bytes;
    } else if (point.code < 0x100) {
      escape('x', point.code, 2);
    } else if (point.code < 0x10000) {
      escape('u', point.code, 4);
    } else {
      escape('U', point.code, 8);
    }
  }
  return out + quote;
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

}  // namespace dsctl::templates::jinja
