#include "templates/jinja/operations.h"

#include <algorithm>

#include "templates/jinja/callable.h"
#include "templates/jinja/object_access.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

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

void fail_undefined(const Value& value) {
  const UndefinedInfo& info = value.as_undefined();
  throw JinjaError(info.security ? ErrorKind::kSecurity : ErrorKind::kUndefined, info.message);
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

}  // namespace dsctl::templates::jinja
