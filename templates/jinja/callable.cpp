#include "templates/jinja/callable.h"

#include <algorithm>
#include <array>

#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {
namespace {

constexpr std::array<std::string_view, 5> kDictMethods = {"copy", "get", "items", "keys", "values"};
constexpr std::array<std::string_view, 5> kDictMutators = {"clear", "pop", "popitem", "setdefault",
                                                           "update"};
constexpr std::array<std::string_view, 8> kListMutators = {"append", "clear",  "extend",  "insert",
                                                           "pop",    "remove", "reverse", "sort"};

template <size_t kSize>
bool is_in(const std::array<std::string_view, kSize>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

Value call_dict_method(Runtime& runtime, const Value& self, std::string_view name,
                       const Arguments& arguments) {
  const auto dict = std::static_pointer_cast<const Dict>(self.object_ptr());
  if (name == "get") {
    const BoundArguments bound("get", arguments, {"key", "default"}, 1);
    const Value* found = dict->find(*bound.get(0), runtime.budget);
    return found ? *found : bound.value_or(1, Value());
  }
  const BoundArguments none(name, arguments, {}, 0);
  if (name == "copy") return self;
  const auto part = name == "keys"     ? DictView::Part::kKeys
                    : name == "values" ? DictView::Part::kValues
                                       : DictView::Part::kItems;
  return Value::object(std::make_shared<DictView>(dict, part));
}

Value call_sequence_method(Runtime& runtime, const Value& self, std::string_view name,
                           const Arguments& arguments) {
  const Values& items = static_cast<const Sequence*>(self.as_object())->items;
  if (name == "copy") return self;
  const BoundArguments bound(name, arguments, {"value", "start", "stop"}, 1);
  if (name == "count") {
    Int count = 0;
    for (const Value& item : items)
      count += equals(item, *bound.get(0), runtime.budget) ? 1 : 0;
    return Value::integer(count);
  }
  const Int length = static_cast<Int>(items.size());
  const auto clamp = [&](Int index) {
    return std::clamp<Int>(index < 0 ? index + length : index, 0, length);
  };
  const Int stop = clamp(bound.int_or(2, length));
  for (Int i = clamp(bound.int_or(1, 0)); i < stop; ++i) {
    if (equals(items[static_cast<size_t>(i)], *bound.get(0), runtime.budget)) {
      return Value::integer(i);
    }
  }
  fail_value(repr(*bound.get(0), runtime.budget) + " is not in " + type_name(self));
}

}  // namespace

BoundArguments::BoundArguments(std::string_view function, const Arguments& arguments,
                               std::initializer_list<std::string_view> names, size_t n_required)
    : function_(function), names_(names), values_(names.size(), nullptr) {
  const std::string call = std::string(function) + "()";
  if (arguments.positional.size() > names_.size()) {
    fail_type(call + " takes at most " + std::to_string(names_.size()) + " arguments (" +
              std::to_string(arguments.positional.size()) + " given)");
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i)
    values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.keywords) {
    const auto found = std::find(names_.begin(), names_.end(), name);
    if (found == names_.end()) {
      fail_type(call + " got an unexpected keyword argument '" + name + "'");
    }
    const Value*& slot = values_[static_cast<size_t>(found - names_.begin())];
    if (slot) fail_type(call + " got multiple values for argument '" + name + "'");
    slot = &value;
  }
  for (size_t i = 0; i < n_required; ++i) {
    if (!values_[i]) {
      fail_type(call + " missing required argument '" + std::string(names_[i]) + "'");
    }
  }
}

const Value* BoundArguments::get(size_t index) const {
  return values_[index];
}

Value BoundArguments::value_or(size_t index, Value fallback) const {
  return values_[index] ? *values_[index] : std::move(fallback);
}

bool BoundArguments::bool_or(size_t index, bool fallback) const {
  return values_[index] ? truthy(*values_[index]) : fallback;
}

Int BoundArguments::int_or(size_t index, Int fallback) const {
  if (!values_[index]) return fallback;
  const Value& value = *values_[index];
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_integral()) {
    fail_type("'" + type_name(value) + "' object cannot be interpreted as an integer");
  }
  // Nothing counts that far; a cap lets callers add without overflow.
  constexpr Int kLarge = Int{1} << 62;
  return std::clamp(value.as_int(), -kLarge, kLarge);
}

std::string BoundArguments::string_or(size_t index, std::string_view fallback) const {
  if (!values_[index]) return std::string(fallback);
  const Value& value = *values_[index];
  if (value.is_undefined()) fail_undefined(value);
  if (!value.is_string()) {
    fail_type(std::string(function_) + "() argument '" + std::string(names_[index]) +
              "' must be str, not " + type_name(value));
  }
  return value.as_string();
}

std::string Helper::describe() const {
  return "<" + std::string(python_name()) + " object>";
}

Value Helper::call(Runtime& /*runtime*/, const Arguments& /*arguments*/) {
  fail_type("'" + std::string(python_name()) + "' object is not callable");
}

std::optional<Value> Helper::attribute(std::string_view /*name*/) {
  return std::nullopt;
}

BoundMethod::BoundMethod(Value bound_to, std::string_view method)
    : self(std::move(bound_to)), name(method) {
  depth = self.depth() + 1;
}

std::string BoundMethod::describe() const {
  return "<built-in method " + name + " of " + type_name(self) + " object>";
}

Value BoundMethod::call(Runtime& runtime, const Arguments& arguments) {
  return call_method(runtime, self, name, arguments);
}

Helper* as_helper(const Value& value) {
  return value.is(Object::Type::kOther) ? static_cast<Helper*>(value.as_object()) : nullptr;
}

bool has_method(const Value& self, std::string_view name) {
  if (self.is_string()) return is_string_method(name);
  if (self.is(Object::Type::kDict)) return is_in(kDictMethods, name);
  if (self.is(Object::Type::kList) && name == "copy") return true;
  if (self.is(Object::Type::kList) || self.is(Object::Type::kTuple)) {
    return name == "index" || name == "count";
  }
  return false;
}

bool is_mutating_method(const Value& self, std::string_view name) {
  if (self.is(Object::Type::kDict)) return is_in(kDictMutators, name);
  return self.is(Object::Type::kList) && is_in(kListMutators, name);
}

Value call_method(Runtime& runtime, const Value& self, std::string_view name,
                  const Arguments& arguments) {
  if (self.is_string()) return call_string_method(runtime, self, name, arguments);
  if (self.is(Object::Type::kDict)) return call_dict_method(runtime, self, name, arguments);
  return call_sequence_method(runtime, self, name, arguments);
}

Value call_value(Runtime& runtime, const Value& callee, const Arguments& arguments) {
  if (callee.is_undefined()) fail_undefined(callee);
  Helper* helper = as_helper(callee);
  if (!helper) fail_type("'" + type_name(callee) + "' object is not callable");
  // The call may drop the last other reference to what is called.
  const ObjectPtr keep = callee.object_ptr();
  return helper->call(runtime, arguments);
}

}  // namespace dsctl::templates::jinja
