// The values of a template: Python's None, bool, int, float, str, list, tuple, dict and the objects
// that Jinja adds. Cheap to copy; strings and containers are shared.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "templates/jinja/jinja_error.h"

namespace dsctl::templates::jinja {

/// Integers: wide enough for every number of a real template; going over it is an error, never a
/// wrap-around.
__extension__ typedef __int128 Int;
__extension__ typedef unsigned __int128 UnsignedInt;

class Value;
class Budget;

/// An immutable string in UTF-8.
struct Text {
  std::string bytes;
  bool ascii = true;
  bool safe = false;  // markup: `+` escapes what is joined to it
};

/// Anything with identity: containers, iterators, callables.
struct Object {
  enum class Type {
    kList,
    kTuple,
    kDict,
    kDictView,
    kRange,
    kIterator,
    kSlice,
    kNamespace,
    kOther,  // callables and helper objects: see callable.h
  };

  explicit Object(Type object_type) : type(object_type) {}
  virtual ~Object() = default;
  Object(const Object&) = delete;
  Object& operator=(const Object&) = delete;

  const Type type;
  int depth = 1;  // nested containers below and including this one
};

using ObjectPtr = std::shared_ptr<Object>;

/// What an undefined value would say when used.
struct UndefinedInfo {
  std::string message;
  bool security = false;
};

class Value {
 public:
  enum class Kind { kNone, kUndefined, kBool, kInt, kFloat, kString, kObject };

  Value() = default;
  static Value undefined(std::string message);
  static Value forbidden(std::string message);
  static Value boolean(bool value);
  static Value integer(Int value);
  static Value real(double value);
  /// Not charged to a budget: for text of the template or of the caller.
  static Value string(std::string bytes);
  static Value markup(std::string bytes);
  static Value object(ObjectPtr object);

  Kind kind() const { return static_cast<Kind>(data_.index()); }
  bool is_none() const { return kind() == Kind::kNone; }
  bool is_undefined() const { return kind() == Kind::kUndefined; }
  bool is_bool() const { return kind() == Kind::kBool; }
  bool is_int() const { return kind() == Kind::kInt; }
  bool is_float() const { return kind() == Kind::kFloat; }
  bool is_string() const { return kind() == Kind::kString; }
  bool is_object() const { return kind() == Kind::kObject; }
  bool is(Object::Type type) const { return is_object() && as_object()->type == type; }
  /// bool, int or float: what Python's arithmetic takes.
  bool is_number() const { return is_bool() || is_int() || is_float(); }
  /// bool or int.
  bool is_integral() const { return is_bool() || is_int(); }

  bool as_bool() const { return std::get<bool>(data_); }
  /// Also of a bool.
  Int as_int() const { return is_bool() ? Int{as_bool()} : std::get<Int>(data_); }
  /// Of any number.
  double as_double() const;
  const std::string& as_string() const { return std::get<TextPtr>(data_)->bytes; }
  const Text& as_text() const { return *std::get<TextPtr>(data_); }
  Object* as_object() const { return std::get<ObjectPtr>(data_).get(); }
  const ObjectPtr& object_ptr() const { return std::get<ObjectPtr>(data_); }
  const UndefinedInfo& as_undefined() const { return *std::get<UndefinedPtr>(data_); }

  /// Nested containers inside, 0 for plain values.
  int depth() const { return is_object() ? as_object()->depth : 0; }

 private:
  using TextPtr = std::shared_ptr<const Text>;
  using UndefinedPtr = std::shared_ptr<const UndefinedInfo>;
  std::variant<std::monostate, UndefinedPtr, bool, Int, double, TextPtr, ObjectPtr> data_;
};

using Values = std::vector<Value>;

/// A list or a tuple. Immutable once made: the sandbox forbids the methods that would change it.
struct Sequence : Object {
  Sequence(Type sequence_type, Values values);
  const Values items;
  bool is_group = false;  // a tuple of groupby: also .grouper and .list
};

/// An ordered dict with any hashable keys. Immutable once it is part of a value.
struct Dict : Object {
  using Entry = std::pair<Value, Value>;

  Dict() : Object(Type::kDict) {}
  const std::vector<Entry>& entries() const { return entries_; }
  /// Null when there is no such key. Throws a kType error for an unhashable key.
  const Value* find(const Value& key, Budget& budget) const;
  const Value* find(std::string_view key) const;
  void set(const Value& key, Value value, Budget& budget);

 private:
  size_t find_index(const Value& key, size_t hash, Budget& budget) const;

  std::vector<Entry> entries_;
  std::unordered_multimap<size_t, size_t> index_;  // hash to entry, once there are many entries
};

/// d.keys(), d.values() and d.items().
struct DictView : Object {
  enum class Part { kKeys, kValues, kItems };
  DictView(std::shared_ptr<const Dict> viewed, Part viewed_part);
  const std::shared_ptr<const Dict> dict;
  const Part part;
};

struct Range : Object {
  Range(Int from, Int to, Int by);
  Int at(Int index) const { return start + index * step; }
  const Int start;
  const Int stop;
  const Int step;
  const Int length;
};

/// A generator or iterator: its items can be taken once.
struct Iterator : Object {
  Iterator(Values values, std::string_view python_type);
  Values items;
  size_t next = 0;
  std::string_view python_name;
  std::optional<JinjaError> failure;  // thrown to whoever wants more than the items
};

/// A slice expression where no slice can be used: it only fails.
struct SliceObject : Object {
  SliceObject() : Object(Type::kSlice) {}
};

/// namespace(): the only thing a template can change. The interpreter empties them all at the end,
/// since they can contain themselves.
struct Namespace : Object {
  Namespace() : Object(Type::kNamespace) {}
  std::vector<std::pair<std::string, Value>> attributes;
  const Value* find(std::string_view name) const;
};

/// These charge the budget and refuse nesting beyond kMaxValueDepth.
constexpr int kMaxValueDepth = 200;
Value make_string(Budget& budget, std::string bytes);
Value make_list(Budget& budget, Values items);
Value make_tuple(Budget& budget, Values items);
Value make_iterator(Budget& budget, Values items, std::string_view python_type = "generator");
void check_depth(int depth);

}  // namespace dsctl::templates::jinja
