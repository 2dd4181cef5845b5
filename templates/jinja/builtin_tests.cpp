// The tests of Jinja: what may stand behind `is`.
#include "templates/jinja/callable.h"
#include "templates/jinja/operations.h"

namespace dsctl::templates::jinja {
namespace {

void expect_arguments(std::string_view name, const Arguments& arguments, size_t count) {
  if (arguments.positional.size() != count || !arguments.keywords.empty()) {
    fail_type("test '" + std::string(name) + "' takes " + std::to_string(count) +
              " arguments, got " +
              std::to_string(arguments.positional.size() + arguments.keywords.size()));
  }
}

template <bool (*kHolds)(const Value& value)>
bool plain(Runtime& /*runtime*/, const Value& value, const Arguments& arguments) {
  expect_arguments("is", arguments, 0);
  return kHolds(value);
}

bool is_defined(const Value& value) {
  return !value.is_undefined();
}

bool is_undefined(const Value& value) {
  return value.is_undefined();
}

bool is_none(const Value& value) {
  return value.is_none();
}

bool is_boolean(const Value& value) {
  return value.is_bool();
}

bool is_true(const Value& value) {
  return value.is_bool() && value.as_bool();
}

bool is_false(const Value& value) {
  return value.is_bool() && !value.as_bool();
}

bool is_integer(const Value& value) {
  return value.is_int();
}

bool is_float(const Value& value) {
  return value.is_float();
}

bool is_number(const Value& value) {
  return value.is_number();
}

bool is_string(const Value& value) {
  return value.is_string();
}

bool is_mapping(const Value& value) {
  return value.is(Object::Type::kDict);
}

/// What has a length and can be indexed; an undefined has both methods.
bool is_sequence(const Value& value) {
  return value.is_string() || value.is_undefined() || value.is(Object::Type::kList) ||
         value.is(Object::Type::kTuple) || value.is(Object::Type::kDict) ||
         value.is(Object::Type::kRange);
}

bool is_callable(const Value& value) {
  // Undefined has a __call__, which fails.
  if (value.is_undefined()) return true;
  const Helper* helper = as_helper(value);
  return helper && helper->is_callable();
}

bool is_escaped(const Value& value) {
  return value.is_string() && value.as_text().safe;
}

bool has_remainder(Runtime& runtime, const Value& value, const Value& divisor, Int wanted) {
  const Value rest = arithmetic(Arithmetic::kModulo, value, divisor, runtime.budget);
  return equals(rest, Value::integer(wanted), runtime.budget);
}

bool is_odd(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("odd", arguments, 0);
  return has_remainder(runtime, value, Value::integer(2), 1);
}

bool is_even(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("even", arguments, 0);
  return has_remainder(runtime, value, Value::integer(2), 0);
}

bool is_divisible(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("divisibleby", arguments, {"num"}, 1);
  return has_remainder(runtime, value, *bound.get(0), 0);
}

bool is_lower_test(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("lower", arguments, 0);
  return is_lower_text(to_str(value, runtime.budget));
}

bool is_upper_test(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("upper", arguments, 0);
  return is_upper_text(to_str(value, runtime.budget));
}

bool is_filter(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("filter", arguments, 0);
  hash_value(value, runtime.budget);  // fails for what can't be a key
  return value.is_string() && find_filter(value.as_string()) != nullptr;
}

bool is_test(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("test", arguments, 0);
  hash_value(value, runtime.budget);
  return value.is_string() && find_test(value.as_string()) != nullptr;
}

/// Python's `is`: the same object; small values count as one object each.
bool is_same(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("sameas", arguments, 1);
  const Value& other = arguments.positional[0];
  if (value.kind() != other.kind()) return false;
  if (value.is_object()) return value.as_object() == other.as_object();
  return equals(value, other, runtime.budget);
}

bool is_in(Runtime& runtime, const Value& value, const Arguments& arguments) {
  const BoundArguments bound("in", arguments, {"seq"}, 1);
  return contains(*bound.get(0), value, runtime.budget);
}

bool is_equal(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("eq", arguments, 1);
  return equals(value, arguments.positional[0], runtime.budget);
}

bool is_unequal(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("ne", arguments, 1);
  return !equals(value, arguments.positional[0], runtime.budget);
}

template <Ordering kOrdering>
bool ordered(Runtime& runtime, const Value& value, const Arguments& arguments) {
  expect_arguments("comparison", arguments, 1);
  return compare(kOrdering, value, arguments.positional[0], runtime.budget);
}

struct Test {
  std::string_view name;
  TestBody body;
};

constexpr Test kTests[] = {
    {"defined", plain<is_defined>},
    {"undefined", plain<is_undefined>},
    {"none", plain<is_none>},
    {"boolean", plain<is_boolean>},
    {"true", plain<is_true>},
    {"false", plain<is_false>},
    {"integer", plain<is_integer>},
    {"float", plain<is_float>},
    {"number", plain<is_number>},
    {"string", plain<is_string>},
    {"mapping", plain<is_mapping>},
    {"sequence", plain<is_sequence>},
    {"iterable", plain<is_iterable>},
    {"callable", plain<is_callable>},
    {"escaped", plain<is_escaped>},
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible},
    {"lower", is_lower_test},
    {"upper", is_upper_test},
    {"filter", is_filter},
    {"test", is_test},
    {"sameas", is_same},
    {"in", is_in},
    {"==", is_equal},
    {"eq", is_equal},
    {"equalto", is_equal},
    {"!=", is_unequal},
    {"ne", is_unequal},
    {"<", ordered<Ordering::kLess>},
    {"lt", ordered<Ordering::kLess>},
    {"lessthan", ordered<Ordering::kLess>},
    {"<=", ordered<Ordering::kLessEqual>},
    {"le", ordered<Ordering::kLessEqual>},
    {">", ordered<Ordering::kGreater>},
    {"gt", ordered<Ordering::kGreater>},
    {"greaterthan", ordered<Ordering::kGreater>},
    {">=", ordered<Ordering::kGreaterEqual>},
    {"ge", ordered<Ordering::kGreaterEqual>},
};

}  // namespace

TestBody find_test(std::string_view name) {
  for (const Test& test : kTests) {
    if (test.name == name) return test.body;
  }
  return nullptr;
}

}  // namespace dsctl::templates::jinja
