// Equality, order, hashes and membership, as Python has them.
#include <algorithm>
#include <cmath>
#include <functional>

#include "templates/jinja/callable.h"
#include "templates/jinja/object_access.h"
#include "templates/jinja/operations.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

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

}  // namespace

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

}  // namespace dsctl::templates::jinja
