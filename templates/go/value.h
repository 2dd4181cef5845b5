// Values of Go templates: what Go's reflection would see, as far as templates can tell. Printing
// and JSON follow fmt.Print and encoding/json, because prompts are made of what they print.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "templates/message.h"

namespace dsctl::templates::go {

struct List;
struct Map;
struct Struct;

/// One value. Default: no value, which is also Go's untyped nil. Composites are shared and
/// immutable.
class Value {
 public:
  Value() = default;
  explicit Value(bool value) : data_(value) {}
  explicit Value(int64_t value) : data_(value) {}
  explicit Value(double value) : data_(value) {}
  explicit Value(std::string value) : data_(std::move(value)) {}
  explicit Value(List list);
  explicit Value(Map map);
  explicit Value(Struct fields);

  /// Go's view of a JSON document: every number is a float64, objects are maps.
  static Value from_json(const Json& json);

  bool is_nil() const { return std::holds_alternative<std::monostate>(data_); }
  const bool* as_bool() const { return std::get_if<bool>(&data_); }
  const int64_t* as_int() const { return std::get_if<int64_t>(&data_); }
  const double* as_float() const { return std::get_if<double>(&data_); }
  const std::string* as_string() const { return std::get_if<std::string>(&data_); }
  const List* as_list() const;
  const Map* as_map() const;
  const Struct* as_struct() const;

  /// Go's truth: false, 0, "", nil and empty collections are false.
  bool truth() const;
  /// Go's name of the type, for messages: "int", "string", "[]interface {}".
  std::string type_name() const;

 private:
  std::variant<std::monostate, bool, int64_t, double, std::string, std::shared_ptr<const List>,
               std::shared_ptr<const Map>, std::shared_ptr<const Struct>>
      data_;
};

/// How a composite prints: as Go's fmt would, as JSON (types with a String method that marshals),
/// or as a fixed text.
enum class PrintForm { kGo, kJson, kText };

struct List {
  std::vector<Value> items;
  PrintForm print = PrintForm::kGo;
  std::string text;  // kText; its JSON form is then json_text
  std::string json_text;
};

struct Map {
  std::map<std::string, Value> items;  // Go prints and ranges over maps in key order
  PrintForm print = PrintForm::kGo;
};

enum class Omit { kNever, kEmpty };  // json:",omitempty"

struct Field {
  std::string name;       // as templates say it
  std::string json_name;  // as JSON says it
  Value value;
  Omit omit = Omit::kNever;
};

struct Struct {
  std::string type_name;
  std::vector<Field> fields;
  PrintForm print = PrintForm::kGo;
  const Value* find(std::string_view name) const;
};

/// fmt.Print of one value. At the top nil prints "<no value>", inside collections "<nil>".
std::string print_value(const Value& value);

/// encoding/json's Marshal as a string: compact, HTML characters escaped.
std::string to_json(const Value& value);

/// A float as fmt's %v prints it: the shortest digits, with an exponent below 1e-04 and from 1e+21.
std::string print_float(double value);

}  // namespace dsctl::templates::go
