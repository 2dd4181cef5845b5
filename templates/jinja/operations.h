// Python's operators on template values, with Python's results and error messages. Every function
// that walks a value charges the budget: values can share parts, so a small one can be huge to
// walk.
#pragma once

#include <string>
#include <string_view>

#include "templates/jinja/budget.h"
#include "templates/jinja/value.h"

namespace dsctl::templates::jinja {

/// Python's type(value).__name__.
std::string type_name(const Value& value);

bool truthy(const Value& value);
std::string to_str(const Value& value, Budget& budget);
std::string repr(const Value& value, Budget& budget);
std::string repr_string(std::string_view text);
/// repr of a float: the shortest digits that read back the same, "1.0", "1e-07", "inf".
std::string format_float(double value);
std::string format_int(Int value);

/// Throws the kUndefined (or kSecurity) error that the value stands for.
[[noreturn]] void fail_undefined(const Value& value);

bool equals(const Value& left, const Value& right, Budget& budget);
size_t hash_value(const Value& value, Budget& budget);
/// The same as hash_value of that string.
size_t hash_string(std::string_view text);

enum class Ordering { kLess, kLessEqual, kGreater, kGreaterEqual };
bool compare(Ordering ordering, const Value& left, const Value& right, Budget& budget);
/// `item in container`.
bool contains(const Value& container, const Value& item, Budget& budget);

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
Value arithmetic(Arithmetic op, const Value& left, const Value& right, Budget& budget);
Value negate(const Value& value);
Value positive(const Value& value);

/// len(value).
Int length_of(const Value& value);
bool is_iterable(const Value& value);
/// The items of any iterable, in order; uses up an iterator.
Values iterate(const Value& value, Budget& budget);

/// `value[start:stop:step]`; none for a bound left out.
Value slice(const Value& value, const Value& start, const Value& stop, const Value& step,
            Budget& budget);
/// `value[key]` as Jinja does it: an item, else an attribute of that name, else undefined.
Value get_item(const Value& value, const Value& key, Budget& budget);
/// `value.name`: a method or attribute, else an item, else undefined.
Value get_attribute(const Value& value, std::string_view name, Budget& budget);
/// The undefined that stands for a missing attribute or item.
Value missing(const Value& value, const Value& key, Budget& budget);

/// & < > ' " as HTML entities.
std::string escape_html(std::string_view text);

}  // namespace dsctl::templates::jinja
