// What a template can call: methods of values, functions, macros, and the helper objects of Jinja.
#pragma once

#include <ctime>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "templates/jinja/budget.h"
#include "templates/jinja/value.h"

namespace dsctl::templates::jinja {

/// What functions and filters need from the render they run in.
struct Runtime {
  Budget budget;
  std::function<std::tm()> local_time;
  /// Objects that can end up containing themselves; emptied when the render is over.
  std::vector<std::shared_ptr<Namespace>> namespaces;
};

struct Arguments {
  Values positional;
  std::vector<std::pair<std::string, Value>> keywords;
};

/// The arguments of one call matched with parameter names as Python does it; throws kType errors
/// for too many, unknown, doubled or missing ones.
class BoundArguments {
 public:
  BoundArguments(std::string_view function, const Arguments& arguments,
                 std::initializer_list<std::string_view> names, size_t n_required);

  /// Null when not given.
  const Value* get(size_t index) const;
  Value value_or(size_t index, Value fallback) const;
  bool bool_or(size_t index, bool fallback) const;
  Int int_or(size_t index, Int fallback) const;
  /// The string given; throws a kType error for anything else.
  std::string string_or(size_t index, std::string_view fallback) const;

 private:
  std::string_view function_;
  std::vector<std::string_view> names_;
  std::vector<const Value*> values_;
};

/// Base of the objects that are not containers.
struct Helper : Object {
  Helper() : Object(Type::kOther) {}
  virtual std::string_view python_name() const = 0;
  /// How it prints.
  virtual std::string describe() const;
  virtual bool is_callable() const { return false; }
  virtual Value call(Runtime& runtime, const Arguments& arguments);
  virtual std::optional<Value> attribute(std::string_view name);
};

/// A method of a string, list, tuple or dict, not called yet.
struct BoundMethod : Helper {
  BoundMethod(Value bound_to, std::string_view method);
  std::string_view python_name() const override { return "builtin_function_or_method"; }
  std::string describe() const override;
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override;

  const Value self;
  const std::string name;
};

/// A function of the environment: range, dict, raise_exception, ...
struct BuiltinFunction : Helper {
  using Body = Value (*)(Runtime& runtime, const Arguments& arguments);
  BuiltinFunction(std::string_view function_name, Body function_body)
      : name(function_name), body(function_body) {}
  std::string_view python_name() const override { return "function"; }
  std::string describe() const override { return "<function " + name + ">"; }
  bool is_callable() const override { return true; }
  Value call(Runtime& runtime, const Arguments& arguments) override {
    return body(runtime, arguments);
  }

  const std::string name;
  const Body body;
};

/// The helper object behind a value, or null.
Helper* as_helper(const Value& value);

/// Is there such a method on values of this type?
bool has_method(const Value& self, std::string_view name);
/// A method that would change the value, which the sandbox forbids.
bool is_mutating_method(const Value& self, std::string_view name);
Value call_method(Runtime& runtime, const Value& self, std::string_view name,
                  const Arguments& arguments);
/// Throws for what can't be called.
Value call_value(Runtime& runtime, const Value& callee, const Arguments& arguments);

/// By type, used by call_method.
bool is_string_method(std::string_view name);
Value call_string_method(Runtime& runtime, const Value& self, std::string_view name,
                         const Arguments& arguments);

/// str.islower, str.isupper and str.replace (all of them for a negative count), for filters too.
bool is_lower_text(std::string_view text);
bool is_upper_text(std::string_view text);
std::string replace_text(std::string_view text, std::string_view old_text,
                         std::string_view new_text, Int max_count, Budget& budget);

/// The function of the environment with this name (range, dict, namespace, ...), or nothing.
std::optional<Value> global_function(std::string_view name);

using FilterBody = Value (*)(Runtime& runtime, const Value& value, const Arguments& arguments);
using TestBody = bool (*)(Runtime& runtime, const Value& value, const Arguments& arguments);
/// Null when there is no such filter or test.
FilterBody find_filter(std::string_view name);
TestBody find_test(std::string_view name);

}  // namespace dsctl::templates::jinja
