// Python's arithmetic and the printing of numbers.
#include <charconv>
#include <cmath>
#include <limits>

#include "templates/jinja/operations.h"
#include "templates/jinja/string_format.h"

namespace dsctl::templates::jinja {
namespace {

const Int kIntMax = static_cast<Int>(~static_cast<UnsignedInt>(0) >> 1);

std::string_view symbol(Arithmetic op) {
  switch (op) {
    case Arithmetic::kAdd:
      return "+";
    case Arithmetic::kSubtract:
      return "-";
    case Arithmetic::kMultiply:
      return "*";
    case Arithmetic::kDivide:
      return "/";
    case Arithmetic::kFloorDivide:
      return "//";
    case Arithmetic::kModulo:
      return "%";
    case Arithmetic::kPower:
      return "** or pow()";
  }
  return "?";
}

[[noreturn]] void fail_overflow() {
  throw JinjaError(ErrorKind::kLimit, "integer too large: templates may use up to 127 bits");
}

Int checked_multiply(Int left, Int right) {
  if (left == 0 || right == 0) return 0;
  // The lowest value has no positive twin; nothing real comes near it.
  if (left < -kIntMax || right < -kIntMax) fail_overflow();
  const Int left_size = left < 0 ? -left : left;
  const Int right_size = right < 0 ? -right : right;
  if (left_size > kIntMax / right_size) fail_overflow();
  return left * right;
}

Int checked_add(Int left, Int right) {
  Int sum = 0;
  if (__builtin_add_overflow(left, right, &sum)) fail_overflow();
  return sum;
}

Int checked_subtract(Int left, Int right) {
  Int difference = 0;
  if (__builtin_sub_overflow(left, right, &difference)) fail_overflow();
  return difference;
}

Int floor_divide(Int left, Int right) {
  if (right == 0) fail_value("integer division or modulo by zero");
  if (right == -1) return checked_subtract(0, left);
  const Int quotient = left / right;
  return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

Int floor_modulo(Int left, Int right) {
  if (right == 0) fail_value("integer modulo by zero");
  if (right == -1) return 0;
  const Int rest = left % right;
  return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

double float_power(double base, double exponent) {
  if (base == 0 && exponent < 0) fail_value("0.0 cannot be raised to a negative power");
  if (base < 0 && std::isfinite(base) && std::isfinite(exponent) &&
      exponent != std::floor(exponent)) {
    fail_value("negative number cannot be raised to a fractional power");
  }
  const double result = std::pow(base, exponent);
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) {
    fail_value("numerical result out of range");
  }
  return result;
}

Value int_power(Int base, Int exponent) {
  if (exponent < 0) {
    return Value::real(float_power(static_cast<double>(base), static_cast<double>(exponent)));
  }
  Int result = 1;
  while (exponent > 0) {
    if (exponent & 1) result = checked_multiply(result, base);
    exponent >>= 1;
    if (exponent > 0) {
      if (base == 0 || base == 1) return Value::integer(result * base);
      base = checked_multiply(base, base);
    }
  }
  return Value::integer(result);
}

struct FloatDivision {
  double quotient;
  double rest;
};

/// Python's float divmod: the rest has the divisor's sign.
FloatDivision divide_floats(double left, double right) {
  double rest = std::fmod(left, right);
  double quotient = (left - rest) / right;
  if (rest != 0) {
    if ((right < 0) != (rest < 0)) {
      rest += right;
      quotient -= 1;
    }
  } else {
    rest = std::copysign(0.0, right);
  }
  if (quotient == 0) return {std::copysign(0.0, left / right), rest};
  double floored = std::floor(quotient);
  if (quotient - floored > 0.5) floored += 1;
  return {floored, rest};
}

Value int_arithmetic(Arithmetic op, Int left, Int right) {
  switch (op) {
    case Arithmetic::kAdd:
      return Value::integer(checked_add(left, right));
    case Arithmetic::kSubtract:
      return Value::integer(checked_subtract(left, right));
    case Arithmetic::kMultiply:
      return Value::integer(checked_multiply(left, right));
    case Arithmetic::kDivide:
      if (right == 0) fail_value("division by zero");
      return Value::real(static_cast<double>(left) / static_cast<double>(right));
    case Arithmetic::kFloorDivide:
      return Value::integer(floor_divide(left, right));
    case Arithmetic::kModulo:
      return Value::integer(floor_modulo(left, right));
    case Arithmetic::kPower:
      return int_power(left, right);
  }
  return {};
}

Value float_arithmetic(Arithmetic op, double left, double right) {
  switch (op) {
    case Arithmetic::kAdd:
      return Value::real(left + right);
    case Arithmetic::kSubtract:
      return Value::real(left - right);
    case Arithmetic::kMultiply:
      return Value::real(left * right);
    case Arithmetic::kDivide:
      if (right == 0) fail_value("float division by zero");
      return Value::real(left / right);
    case Arithmetic::kFloorDivide:
      if (right == 0) fail_value("float floor division by zero");
      return Value::real(divide_floats(left, right).quotient);
    case Arithmetic::kModulo:
      if (right == 0) fail_value("float modulo");
      return Value::real(divide_floats(left, right).rest);
    case Arithmetic::kPower:
      return Value::real(float_power(left, right));
  }
  return {};
}

[[noreturn]] void fail_operands(Arithmetic op, const Value& left, const Value& right) {
  fail_type("unsupported operand type(s) for " + std::string(symbol(op)) + ": '" + type_name(left) +
            "' and '" + type_name(right) + "'");
}

Value add_strings(const Value& left, const Value& right, Budget& budget) {
  const Text& a = left.as_text();
  const Text& b = right.as_text();
  if (!a.safe && !b.safe) {
    budget.charge_string(a.bytes.size() + b.bytes.size());
    return Value::string(a.bytes + b.bytes);
  }
  std::string joined =
      (a.safe ? a.bytes : escape_html(a.bytes)) + (b.safe ? b.bytes : escape_html(b.bytes));
  budget.charge_string(joined.size());
  return Value::markup(std::move(joined));
}

Value add(const Value& left, const Value& right, Budget& budget) {
  if (left.is_string() && right.is_string()) return add_strings(left, right, budget);
  if (left.is_string()) {
    fail_type("can only concatenate str (not \"" + type_name(right) + "\") to str");
  }
  for (const auto type : {Object::Type::kList, Object::Type::kTuple}) {
    if (!left.is(type)) continue;
    if (!right.is(type)) {
      fail_type("can only concatenate " + type_name(left) + " (not \"" + type_name(right) +
                "\") to " + type_name(left));
    }
    Values items = static_cast<const Sequence*>(left.as_object())->items;
    const Values& more = static_cast<const Sequence*>(right.as_object())->items;
    budget.charge_items(items.size() + more.size());
    items.insert(items.end(), more.begin(), more.end());
    return type == Object::Type::kList ? make_list(budget, std::move(items))
                                       : make_tuple(budget, std::move(items));
  }
  fail_operands(Arithmetic::kAdd, left, right);
}

Value repeat(const Value& sequence, Int times, Budget& budget) {
  if (times < 0) times = 0;
  if (sequence.is_string()) {
    const Text& text = sequence.as_text();
    const Int limit = static_cast<Int>(budget.limits().max_string_bytes) + 1;
    const Int size = times >= limit ? limit : times * static_cast<Int>(text.bytes.size());
    if (text.bytes.empty() || times == 0) return Value::string("");
    budget.charge_string(static_cast<size_t>(size > limit ? limit : size));
    std::string repeated;
    repeated.reserve(static_cast<size_t>(size));
    for (Int i = 0; i < times; ++i)
      repeated += text.bytes;
    return text.safe ? Value::markup(std::move(repeated)) : Value::string(std::move(repeated));
  }
  const Values& items = static_cast<const Sequence*>(sequence.as_object())->items;
  Values repeated;
  if (!items.empty() && times > 0) {
    const Int limit = static_cast<Int>(budget.limits().max_items) + 1;
    const Int size = times >= limit ? limit : times * static_cast<Int>(items.size());
    budget.charge_items(static_cast<size_t>(size > limit ? limit : size));
    repeated.reserve(static_cast<size_t>(size));
    for (Int i = 0; i < times; ++i)
      repeated.insert(repeated.end(), items.begin(), items.end());
  }
  return sequence.is(Object::Type::kList) ? make_list(budget, std::move(repeated))
                                          : make_tuple(budget, std::move(repeated));
}

bool is_repeatable(const Value& value) {
  return value.is_string() || value.is(Object::Type::kList) || value.is(Object::Type::kTuple);
}

}  // namespace

Value arithmetic(Arithmetic op, const Value& left, const Value& right, Budget& budget) {
  if (left.is_undefined()) fail_undefined(left);
  if (op == Arithmetic::kModulo && left.is_string()) {
    std::string text = format_percent(left.as_string(), right, budget);
    return make_string(budget, std::move(text));
  }
  if (right.is_undefined()) fail_undefined(right);
  if (left.is_integral() && right.is_integral()) {
    return int_arithmetic(op, left.as_int(), right.as_int());
  }
  if (left.is_number() && right.is_number()) {
    return float_arithmetic(op, left.as_double(), right.as_double());
  }
  if (op == Arithmetic::kAdd) return add(left, right, budget);
  if (op == Arithmetic::kMultiply && (is_repeatable(left) || is_repeatable(right))) {
    if (is_repeatable(left) && right.is_integral()) return repeat(left, right.as_int(), budget);
    if (is_repeatable(right) && left.is_integral()) return repeat(right, left.as_int(), budget);
    const Value& other = is_repeatable(left) ? right : left;
    fail_type("can't multiply sequence by non-int of type '" + type_name(other) + "'");
  }
  fail_operands(op, left, right);
}

Value negate(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return Value::integer(checked_subtract(0, value.as_int()));
  if (value.is_float()) return Value::real(-value.as_double());
  fail_type("bad operand type for unary -: '" + type_name(value) + "'");
}

Value positive(const Value& value) {
  if (value.is_undefined()) fail_undefined(value);
  if (value.is_integral()) return Value::integer(value.as_int());
  if (value.is_float()) return value;
  fail_type("bad operand type for unary +: '" + type_name(value) + "'");
}

std::string format_int(Int value) {
  if (value == 0) return "0";
  std::string digits;
  for (Int rest = value; rest != 0; rest /= 10) {
    const int digit = static_cast<int>(rest % 10);
    digits.insert(digits.begin(), static_cast<char>('0' + (digit < 0 ? -digit : digit)));
  }
  return value < 0 ? "-" + digits : digits;
}

std::string format_float(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr;
  const std::string_view text(buffer, static_cast<size_t>(end - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const char* exponent_text = text.data() + e + 1;
  std::from_chars(*exponent_text == '+' ? exponent_text + 1 : exponent_text, end, exponent);
  std::string sign = text[0] == '-' ? "-" : "";
  std::string digits;
  for (const char c : text.substr(0, e)) {
    if (c >= '0' && c <= '9') digits += c;
  }
  // Python's repr: plain digits for exponents from -4 to 15.
  if (exponent < -4 || exponent >= 16) {
    std::string result = sign + digits.substr(0, 1);
    if (digits.size() > 1) result += "." + digits.substr(1);
    const int size = exponent < 0 ? -exponent : exponent;
    return result + (exponent < 0 ? "e-" : "e+") + (size < 10 ? "0" : "") + std::to_string(size);
  }
  if (exponent < 0)
    return sign + "0." + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) return sign + digits + std::string(whole - digits.size(), '0') + ".0";
  return sign + digits.substr(0, whole) + "." + digits.substr(whole);
}

}  // namespace dsctl::templates::jinja
