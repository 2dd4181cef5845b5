#include "templates/jinja/operations.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "templates/jinja/callable.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

const Values& items_of(const Value& value) {
  return static_cast<const Sequence*>(value.as_object())->items;
}

const Dict& dict_of(const Value& value) {
  return *static_cast<const Dict*>(value.as_object());
}

const Range& range_of(const Value& value) {
  return *static_cast<const Range*>(value.as_object());
}

const DictView& view_of(const Value& value) {
  return *static_cast<const DictView*>(value.as_object());
}

std::string_view view_name(DictView::Part part) {
  switch (part) {
    case DictView::Part::kKeys:
      return "dict_keys";
    case DictView::Part::kValues:
      return "dict_values";
    case DictView::Part::kItems:
      return "dict_items";
  }
  return "";
}

/// Exact comparison of an integer and a float: -1, 0, 1, or 2 for NaN.
int order_int_float(Int left, double right) {
  if (std::isnan(right)) return 2;
  // Beyond 2^126 any float is larger in size than an Int can be.
  if (right >= 8.5e37) return -1;
  if (right <= -8.5e37) return 1;
  const Int whole = static_cast<Int>(right);
  if (left != whole) return left < whole ? -1 : 1;
  const double rest = right - static_cast<double>(whole);
  return rest > 0 ? -1 : rest < 0 ? 1 : 0;
}

int order_numbers(const Value& left, const Value& right) {
  if (left.is_integral() && right.is_integral()) {
    return left.as_int() < right.as_int() ? -1 : left.as_int() > right.as_int() ? 1 : 0;
  }
  if (left.is_integral()) return order_int_float(left.as_int(), right.as_double());
  if (right.is_integral()) {
    const int order = order_int_float(right.as_int(), left.as_double());
    return order == 2 ? 2 : -order;
  }
  const double a = left.as_double();
  const double b = right.as_double();
  if (std::isnan(a) || std::isnan(b)) return 2;
  return a < b ? -1 : a > b ? 1 : 0;
}

bool holds(Ordering ordering, int order) {
  switch (ordering) {
    case Ordering::kLess:
      return order == -1;
    case Ordering::kLessEqual:
      return order == -1 || order == 0;
    case Ordering::kGreater:
      return order == 1;
    case Ordering::kGreaterEqual:
      return order == 1 || order == 0;
  }
  return false;
}

std::string_view symbol(Ordering ordering) {
  switch (ordering) {
    case Ordering::kLess:
      return "<";
    case Ordering::kLessEqual:
      return "<=";
    case Ordering::kGreater:
      return ">";
    case Ordering::kGreaterEqual:
      return ">=";
  }
  return "?";
}

bool equal_dicts(const Dict& left, const Dict& right, Budget& budget) {
  if (left.entries().size() != right.entries().size()) return false;
  for (const auto& [key, value] : left.entries()) {
    const Value* other = right.find(key, budget);
    if (!other || !equals(value, *other, budget)) return false;
  }
  return true;
}

bool equal_sequences(const Values& left, const Values& right, Budget& budget) {
  if (left.size() != right.size()) return false;
  for (size_t i = 0; i < left.size(); ++i) {
    if (!equals(left[i], right[i], budget)) return false;
  }
  return true;
}

bool equal_ranges(const Range& left, const Range& right) {
  if (left.length != right.length) return false;
  if (left.length == 0) return true;
  return left.start == right.start && (left.length == 1 || left.step == right.step);
}

bool equal_objects(const Value& left, const Value& right, Budget& budget) {
  if (left.as_object() == right.as_object()) return true;
  if (left.as_object()->type != right.as_object()->type) return false;
  switch (left.as_object()->type) {
    case Object::Type::kList:
    case Object::Type::kTuple:
      return equal_sequences(items_of(left), items_of(right), budget);
    case Object::Type::kDict:
      return equal_dicts(dict_of(left), dict_of(right), budget);
    case Object::Type::kRange:
      return equal_ranges(range_of(left), range_of(right));
    case Object::Type::kDictView:
      // Keys and items compare like sets, values never do.
      if (view_of(left).part == DictView::Part::kValues) return false;
      if (view_of(left).part != view_of(right).part) return false;
      if (view_of(left).part == DictView::Part::kItems) {
        return equal_dicts(*view_of(left).dict, *view_of(right).dict, budget);
      }
      if (view_of(left).dict->entries().size() != view_of(right).dict->entries().size()) {
        return false;
      }
      return std::all_of(view_of(left).dict->entries().begin(), view_of(left).dict->entries().end(),
                         [&](const Dict::Entry& entry) {
                           return view_of(right).dict->find(entry.first, budget) != nullptr;
                         });
    case Object::Type::kIterator:
    case Object::Type::kSlice:
    case Object::Type::kNamespace:
    case Object::Type::kOther:
      return false;
  }
  return false;
}

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

/// Bounds of value[start:stop:step] on `length` elements, as Python's slice.indices does.
struct SliceBounds {
  Int start;
  Int stop;
  Int step;
};

Int slice_index(const Value& value) {
  if (!value.is_integral()) {
    fail_type("slice indices must be integers or None or have an __index__ method");
  }
  return value.as_int();
}

SliceBounds slice_bounds(Int length, const Value& start, const Value& stop, const Value& step) {
  SliceBounds bounds{.start = 0, .stop = length, .step = step.is_none() ? 1 : slice_index(step)};
  if (bounds.step == 0) fail_value("slice step cannot be zero");
  const bool backward = bounds.step < 0;
  const Int lowest = backward ? -1 : 0;
  const Int highest = backward ? length - 1 : length;
  const auto bound = [&](const Value& given, Int fallback) {
    if (given.is_none()) return fallback;
    Int index = slice_index(given);
    if (index < 0) index += length;
    return std::clamp(index, lowest, highest);
  };
  bounds.start = bound(start, backward ? highest : lowest);
  bounds.stop = bound(stop, backward ? lowest : highest);
  // A step longer than the sequence reaches one element; clamping keeps the sums small.
  bounds.step = std::clamp(bounds.step, -length - 1, length + 1);
  return bounds;
}

Value slice_string(const Value& value, const Value& start, const Value& stop, const Value& step,
                   Budget& budget) {
  const Text& text = value.as_text();
  const Int length =
      text.ascii ? static_cast<Int>(text.bytes.size()) : static_cast<Int>(code_length(text.bytes));
  const SliceBounds bounds = slice_bounds(length, start, stop, step);
  std::string part;
  if (bounds.step == 1) {
    if (bounds.start < bounds.stop) {
      const auto offset = [&](Int index) {
        return text.ascii ? static_cast<size_t>(index)
                          : byte_offset(text.bytes, static_cast<size_t>(index));
      };
      const size_t first = offset(bounds.start);
      part = text.bytes.substr(first, offset(bounds.stop) - first);
    }
  } else {
    const std::vector<uint32_t> codes = decode_all(text.bytes);
    budget.charge_steps(codes.size());
    for (Int i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;
         i += bounds.step) {
      append_code(part, codes[static_cast<size_t>(i)]);
    }
  }
  budget.charge_string(part.size());
  return text.safe ? Value::markup(std::move(part)) : Value::string(std::move(part));
}

Values slice_items(const Values& items, const SliceBounds& bounds) {
  Values part;
  for (Int i = bounds.start; bounds.step > 0 ? i < bounds.stop : i > bounds.stop;
       i += bounds.step) {
    part.push_back(items[static_cast<size_t>(i)]);
  }
  return part;
}

/// The character at an index of any sign, or nothing.
std::optional<Value> string_item(const Text& text, Int index) {
  const Int length =
      text.ascii ? static_cast<Int>(text.bytes.size()) : static_cast<Int>(code_length(text.bytes));
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  const size_t offset =
      text.ascii ? static_cast<size_t>(index) : byte_offset(text.bytes, static_cast<size_t>(index));
  return Value::string(text.bytes.substr(offset, decode(text.bytes, offset).size_bytes));
}

/// `value[key]` in plain Python, or nothing where Python raises.
std::optional<Value> plain_item(const Value& value, const Value& key, Budget& budget) {
  if (value.is_string()) {
    budget.charge_steps(value.as_string().size() / 64);
    return key.is_integral() ? string_item(value.as_text(), key.as_int()) : std::nullopt;
  }
  if (!value.is_object()) return std::nullopt;
  switch (value.as_object()->type) {
    case Object::Type::kList:
    case Object::Type::kTuple: {
      if (!key.is_integral()) return std::nullopt;
      const Values& items = items_of(value);
      const Int length = static_cast<Int>(items.size());
      const Int index = key.as_int() < 0 ? key.as_int() + length : key.as_int();
      if (index < 0 || index >= length) return std::nullopt;
      return items[static_cast<size_t>(index)];
    }
    case Object::Type::kDict: {
      if (key.is(Object::Type::kList) || key.is(Object::Type::kDict)) return std::nullopt;
      const Value* found = nullptr;
      try {
        found = dict_of(value).find(key, budget);
      } catch (const JinjaError& error) {
        // An unhashable key, deep inside a tuple.
        if (error.kind() != ErrorKind::kType) throw;
      }
      return found ? std::optional(*found) : std::nullopt;
    }
    case Object::Type::kRange: {
      if (!key.is_integral()) return std::nullopt;
      const Range& range = range_of(value);
      const Int index = key.as_int() < 0 ? key.as_int() + range.length : key.as_int();
      if (index < 0 || index >= range.length) return std::nullopt;
      return Value::integer(range.at(index));
    }
    case Object::Type::kDictView:
    case Object::Type::kIterator:
    case Object::Type::kSlice:
    case Object::Type::kNamespace:
    case Object::Type::kOther:
      return std::nullopt;
  }
  return std::nullopt;
}

/// Python's getattr under the sandbox, or nothing where there is no such attribute.
std::optional<Value> plain_attribute(const Value& value, std::string_view name) {
  if (is_mutating_method(value, name)) {
    return Value::forbidden("access to attribute '" + std::string(name) + "' of '" +
                            type_name(value) + "' object is unsafe");
  }
  if (has_method(value, name)) {
    auto method = std::make_shared<BoundMethod>(value, name);
    check_depth(method->depth);
    return Value::object(std::move(method));
  }
  if (value.is(Object::Type::kNamespace)) {
    const Value* found = static_cast<const Namespace*>(value.as_object())->find(name);
    return found ? std::optional(*found) : std::nullopt;
  }
  if (value.is(Object::Type::kTuple) && static_cast<const Sequence*>(value.as_object())->is_group) {
    if (name == "grouper") return items_of(value)[0];
    if (name == "list") return items_of(value)[1];
  }
  if (value.is(Object::Type::kRange)) {
    if (name == "start") return Value::integer(range_of(value).start);
    if (name == "stop") return Value::integer(range_of(value).stop);
    if (name == "step") return Value::integer(range_of(value).step);
  }
  if (Helper* helper = as_helper(value)) return helper->attribute(name);
  return std::nullopt;
}

Values iterate_view(const DictView& view, Budget& budget) {
  Values items;
  budget.charge_items(view.dict->entries().size());
  for (const auto& [key, value] : view.dict->entries()) {
    switch (view.part) {
      case DictView::Part::kKeys:
        items.push_back(key);
        break;
      case DictView::Part::kValues:
        items.push_back(value);
        break;
      case DictView::Part::kItems:
        items.push_back(make_tuple(budget, {key, value}));
        break;
    }
  }
  return items;
}

Values iterate_string(const Text& text, Budget& budget) {
  Values items;
  for (size_t pos = 0; pos < text.bytes.size();) {
    const size_t size = decode(text.bytes, pos).size_bytes;
    budget.charge_items(1);
    items.push_back(Value::string(text.bytes.substr(pos, size)));
    pos += size;
  }
  return items;
}

Values iterate_range(const Range& range, Budget& budget) {
  budget.charge_items(
      static_cast<size_t>(std::min(range.length, static_cast<Int>(budget.limits().max_items) + 1)));
  Values items;
  for (Int i = 0; i < range.length; ++i)
    items.push_back(Value::integer(range.at(i)));
  return items;
}

}  // namespace

std::string type_name(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kNone:
      return "NoneType";
    case Value::Kind::kUndefined:
      return "Undefined";
    case Value::Kind::kBool:
      return "bool";
    case Value::Kind::kInt:
      return "int";
    case Value::Kind::kFloat:
      return "float";
    case Value::Kind::kString:
      return value.as_text().safe ? "Markup" : "str";
    case Value::Kind::kObject:
      break;
  }
  switch (value.as_object()->type) {
    case Object::Type::kList:
      return "list";
    case Object::Type::kTuple:
      return "tuple";
    case Object::Type::kDict:
      return "dict";
    case Object::Type::kDictView:
      return std::string(view_name(view_of(value).part));
    case Object::Type::kRange:
      return "range";
    case Object::Type::kIterator:
      return std::string(static_cast<const Iterator*>(value.as_object())->python_name);
    case Object::Type::kSlice:
      return "slice";
    case Object::Type::kNamespace:
      return "Namespace";
    case Object::Type::kOther:
      return std::string(as_helper(value)->python_name());
  }
  return "object";
}

bool truthy(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kNone:
    case Value::Kind::kUndefined:
      return false;
    case Value::Kind::kBool:
      return value.as_bool();
    case Value::Kind::kInt:
      return value.as_int() != 0;
    case Value::Kind::kFloat:
      return value.as_double() != 0;
    case Value::Kind::kString:
      return !value.as_string().empty();
    case Value::Kind::kObject:
      break;
  }
  switch (value.as_object()->type) {
    case Object::Type::kList:
    case Object::Type::kTuple:
      return !items_of(value).empty();
    case Object::Type::kDict:
      return !dict_of(value).entries().empty();
    case Object::Type::kDictView:
      return !view_of(value).dict->entries().empty();
    case Object::Type::kRange:
      return range_of(value).length > 0;
    case Object::Type::kIterator:
    case Object::Type::kSlice:
    case Object::Type::kNamespace:
    case Object::Type::kOther:
      return true;
  }
  return true;
}

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

void fail_undefined(const Value& value) {
  const UndefinedInfo& info = value.as_undefined();
  throw JinjaError(info.security ? ErrorKind::kSecurity : ErrorKind::kUndefined, info.message);
}

bool equals(const Value& left, const Value& right, Budget& budget) {
  budget.charge_steps(1);
  if (left.is_number() && right.is_number()) return order_numbers(left, right) == 0;
  if (left.kind() != right.kind()) return false;
  switch (left.kind()) {
    case Value::Kind::kNone:
    case Value::Kind::kUndefined:
      return true;
    case Value::Kind::kString:
      budget.charge_steps(left.as_string().size() / 64);
      return left.as_string() == right.as_string();
    case Value::Kind::kObject:
      return equal_objects(left, right, budget);
    case Value::Kind::kBool:
    case Value::Kind::kInt:
    case Value::Kind::kFloat:
      break;
  }
  return false;
}

size_t hash_value(const Value& value, Budget& budget) {
  budget.charge_steps(1);
  switch (value.kind()) {
    case Value::Kind::kNone:
      return 1;
    case Value::Kind::kUndefined:
      return 2;
    case Value::Kind::kBool:
    case Value::Kind::kInt:
    case Value::Kind::kFloat:
      // Equal numbers of different types must meet: hash what a double keeps of them.
      return std::hash<double>()(value.as_double());
    case Value::Kind::kString:
      budget.charge_steps(value.as_string().size() / 64);
      return hash_string(value.as_string());
    case Value::Kind::kObject:
      break;
  }
  if (value.is(Object::Type::kTuple)) {
    size_t hash = 3;
    for (const Value& item : items_of(value))
      hash = hash * 1000003 ^ hash_value(item, budget);
    return hash;
  }
  if (value.is(Object::Type::kList) || value.is(Object::Type::kDict) ||
      value.is(Object::Type::kDictView) || value.is(Object::Type::kSlice)) {
    fail_type("unhashable type: '" + type_name(value) + "'");
  }
  if (value.is(Object::Type::kRange)) return static_cast<size_t>(range_of(value).length);
  return std::hash<const Object*>()(value.as_object());
}

size_t hash_string(std::string_view text) {
  return std::hash<std::string_view>()(text);
}

bool compare(Ordering ordering, const Value& left, const Value& right, Budget& budget) {
  budget.charge_steps(1);
  if (left.is_undefined()) fail_undefined(left);
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_number() && right.is_number()) return holds(ordering, order_numbers(left, right));
  if (left.is_string() && right.is_string()) {
    budget.charge_steps(left.as_string().size() / 64);
    const int order = left.as_string().compare(right.as_string());
    return holds(ordering, order < 0 ? -1 : order > 0 ? 1 : 0);
  }
  for (const auto type : {Object::Type::kList, Object::Type::kTuple}) {
    if (!left.is(type) || !right.is(type)) continue;
    const Values& a = items_of(left);
    const Values& b = items_of(right);
    for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
      if (!equals(a[i], b[i], budget)) return compare(ordering, a[i], b[i], budget);
    }
    return holds(ordering, a.size() < b.size() ? -1 : a.size() > b.size() ? 1 : 0);
  }
  fail_type("'" + std::string(symbol(ordering)) + "' not supported between instances of '" +
            type_name(left) + "' and '" + type_name(right) + "'");
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_undefined()) return false;
  if (container.is_string()) {
    if (!item.is_string()) {
      fail_type("'in <string>' requires string as left operand, not " + type_name(item));
    }
    budget.charge_steps(container.as_string().size() / 64);
    return find_text(container.as_string(), item.as_string(), 0) != std::string::npos;
  }
  if (container.is(Object::Type::kDict)) return dict_of(container).find(item, budget) != nullptr;
  if (container.is(Object::Type::kDictView) && view_of(container).part == DictView::Part::kKeys) {
    return view_of(container).dict->find(item, budget) != nullptr;
  }
  if (!is_iterable(container)) {
    fail_type("argument of type '" + type_name(container) + "' is not iterable");
  }
  if (container.is(Object::Type::kIterator)) {
    auto& iterator = *static_cast<Iterator*>(container.as_object());
    while (iterator.next < iterator.items.size()) {
      if (equals(iterator.items[iterator.next++], item, budget)) return true;
    }
    if (iterator.failure) throw *iterator.failure;
    return false;
  }
  if (container.is(Object::Type::kList) || container.is(Object::Type::kTuple)) {
    const Values& items = items_of(container);
    return std::any_of(items.begin(), items.end(),
                       [&](const Value& element) { return equals(element, item, budget); });
  }
  const Values items = iterate(container, budget);
  return std::any_of(items.begin(), items.end(),
                     [&](const Value& element) { return equals(element, item, budget); });
}

Int length_of(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.is_string()) {
    const Text& text = value.as_text();
    return static_cast<Int>(text.ascii ? text.bytes.size() : code_length(text.bytes));
  }
  if (value.is_object()) {
    switch (value.as_object()->type) {
      case Object::Type::kList:
      case Object::Type::kTuple:
        return static_cast<Int>(items_of(value).size());
      case Object::Type::kDict:
        return static_cast<Int>(dict_of(value).entries().size());
      case Object::Type::kDictView:
        return static_cast<Int>(view_of(value).dict->entries().size());
      case Object::Type::kRange:
        return range_of(value).length;
      case Object::Type::kIterator:
      case Object::Type::kSlice:
      case Object::Type::kNamespace:
      case Object::Type::kOther:
        break;
    }
  }
  fail_type("object of type '" + type_name(value) + "' has no len()");
}

bool is_iterable(const Value& value) {
  if (value.is_undefined() || value.is_string()) return true;
  if (!value.is_object()) return false;
  switch (value.as_object()->type) {
    case Object::Type::kList:
    case Object::Type::kTuple:
    case Object::Type::kDict:
    case Object::Type::kDictView:
    case Object::Type::kRange:
    case Object::Type::kIterator:
      return true;
    case Object::Type::kSlice:
    case Object::Type::kNamespace:
    case Object::Type::kOther:
      return false;
  }
  return false;
}

Values iterate(const Value& value, Budget& budget) {
  if (value.is_undefined()) return {};
  if (value.is_string()) return iterate_string(value.as_text(), budget);
  if (value.is_object()) {
    switch (value.as_object()->type) {
      case Object::Type::kList:
      case Object::Type::kTuple:
        budget.charge_items(items_of(value).size());
        return items_of(value);
      case Object::Type::kDict: {
        Values keys;
        budget.charge_items(dict_of(value).entries().size());
        for (const auto& entry : dict_of(value).entries())
          keys.push_back(entry.first);
        return keys;
      }
      case Object::Type::kDictView:
        return iterate_view(view_of(value), budget);
      case Object::Type::kRange:
        return iterate_range(range_of(value), budget);
      case Object::Type::kIterator: {
        auto& iterator = *static_cast<Iterator*>(value.as_object());
        Values rest(iterator.items.begin() + static_cast<ptrdiff_t>(iterator.next),
                    iterator.items.end());
        iterator.next = iterator.items.size();
        if (iterator.failure) throw *iterator.failure;
        return rest;
      }
      case Object::Type::kSlice:
      case Object::Type::kNamespace:
      case Object::Type::kOther:
        break;
    }
  }
  fail_type("'" + type_name(value) + "' object is not iterable");
}

Value slice(const Value& value, const Value& start, const Value& stop, const Value& step,
            Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_string()) {
    budget.charge_steps(value.as_string().size() / 64);
    return slice_string(value, start, stop, step, budget);
  }
  const bool list = value.is(Object::Type::kList);
  if (list || value.is(Object::Type::kTuple)) {
    const Values& items = items_of(value);
    const SliceBounds bounds = slice_bounds(static_cast<Int>(items.size()), start, stop, step);
    Values part = slice_items(items, bounds);
    return list ? make_list(budget, std::move(part)) : make_tuple(budget, std::move(part));
  }
  if (value.is(Object::Type::kRange)) {
    const Range& range = range_of(value);
    const SliceBounds bounds = slice_bounds(range.length, start, stop, step);
    // Slicing a slice again and again multiplies the steps.
    constexpr Int kMaxStep = Int{1} << 90;
    const Int new_step = range.step * bounds.step;
    if (new_step > kMaxStep || new_step < -kMaxStep) fail_value("range step too large");
    return Value::object(std::make_shared<Range>(range.start + bounds.start * range.step,
                                                 range.start + bounds.stop * range.step, new_step));
  }
  if (value.is(Object::Type::kDict)) fail_type("unhashable type: 'slice'");
  fail_type("'" + type_name(value) + "' object is not subscriptable");
}

Value get_item(const Value& value, const Value& key, Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (std::optional<Value> item = plain_item(value, key, budget)) return *item;
  if (key.is_string()) {
    if (std::optional<Value> found = plain_attribute(value, key.as_string())) return *found;
  }
  return missing(value, key, budget);
}

Value get_attribute(const Value& value, std::string_view name, Budget& budget) {
  if (value.is_undefined()) fail_undefined(value);
  if (std::optional<Value> found = plain_attribute(value, name)) return *found;
  if (value.is(Object::Type::kDict)) {
    budget.charge_steps(1);
    if (const Value* item = dict_of(value).find(name)) return *item;
  }
  return missing(value, Value::string(std::string(name)), budget);
}

Value missing(const Value& value, const Value& key, Budget& budget) {
  const std::string owner = value.is_none() ? "None" : type_name(value) + " object";
  if (key.is_string()) {
    return Value::undefined("'" + owner + "' has no attribute " + repr_string(key.as_string()));
  }
  return Value::undefined(owner + " has no element " + repr(key, budget));
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
