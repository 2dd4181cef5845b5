#include "templates/go/value.h"

#include <charconv>
#include <cmath>
#include <cstdio>

namespace dsctl::templates::go {

Value::Value(List list) : data_(std::make_shared<const List>(std::move(list))) {}
Value::Value(Map map) : data_(std::make_shared<const Map>(std::move(map))) {}
Value::Value(Struct fields) : data_(std::make_shared<const Struct>(std::move(fields))) {}

const List* Value::as_list() const {
  const auto* list = std::get_if<std::shared_ptr<const List>>(&data_);
  return list ? list->get() : nullptr;
}

const Map* Value::as_map() const {
  const auto* map = std::get_if<std::shared_ptr<const Map>>(&data_);
  return map ? map->get() : nullptr;
}

const Struct* Value::as_struct() const {
  const auto* fields = std::get_if<std::shared_ptr<const Struct>>(&data_);
  return fields ? fields->get() : nullptr;
}

Value Value::from_json(const Json& json) {
  if (json.is_boolean()) return Value(json.get<bool>());
  if (json.is_number()) return Value(json.get<double>());
  if (json.is_string()) return Value(json.get<std::string>());
  if (json.is_array()) {
    List list;
    for (const Json& item : json)
      list.items.push_back(from_json(item));
    return Value(std::move(list));
  }
  if (json.is_object()) {
    Map map;
    for (const auto& [key, item] : json.items())
      map.items[key] = from_json(item);
    return Value(std::move(map));
  }
  return Value();
}

bool Value::truth() const {
  if (const bool* value = as_bool()) return *value;
  if (const int64_t* value = as_int()) return *value != 0;
  if (const double* value = as_float()) return *value != 0.0;
  if (const std::string* value = as_string()) return !value->empty();
  if (const List* list = as_list()) return !list->items.empty();
  if (const Map* map = as_map()) return !map->items.empty();
  return as_struct() != nullptr;
}

std::string Value::type_name() const {
  if (as_bool()) return "bool";
  if (as_int()) return "int";
  if (as_float()) return "float64";
  if (as_string()) return "string";
  if (as_list()) return "[]interface {}";
  if (as_map()) return "map[string]interface {}";
  if (const Struct* fields = as_struct()) return fields->type_name;
  return "nil";
}

const Value* Struct::find(std::string_view name) const {
  for (const Field& field : fields) {
    if (field.name == name) return &field.value;
  }
  return nullptr;
}

std::string print_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char buffer[64];
  // The scientific form gives the shortest digits and the exponent by which fmt decides.
  auto end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific);
  const std::string scientific(buffer, end.ptr);
  const size_t e = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(e + 1));
  // strconv decides with precision 6 when it prints the shortest digits.
  if (exponent < -4 || exponent >= 6) return scientific;
  end = std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::fixed);
  return std::string(buffer, end.ptr);
}

namespace {

std::string print_nested(const Value& value);

std::string print_struct(const Struct& fields) {
  std::string out = "{";
  bool first = true;
  for (const Field& field : fields.fields) {
    if (!first) out += ' ';
    first = false;
    out += print_nested(field.value);
  }
  return out + "}";
}

std::string print_nested(const Value& value) {
  if (value.is_nil()) return "<nil>";
  if (const bool* flag = value.as_bool()) return *flag ? "true" : "false";
  if (const int64_t* number = value.as_int()) return std::to_string(*number);
  if (const double* number = value.as_float()) return print_float(*number);
  if (const std::string* text = value.as_string()) return *text;
  if (const List* list = value.as_list()) {
    if (list->print == PrintForm::kText) return list->text;
    if (list->print == PrintForm::kJson) return to_json(value);
    std::string out = "[";
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) out += ' ';
      out += print_nested(list->items[i]);
    }
    return out + "]";
  }
  if (const Map* map = value.as_map()) {
    if (map->print == PrintForm::kJson) return to_json(value);
    std::string out = "map[";
    for (const auto& [key, item] : map->items) {
      if (out.size() > 4) out += ' ';
      out += key + ":" + print_nested(item);
    }
    return out + "]";
  }
  const Struct& fields = *value.as_struct();
  return fields.print == PrintForm::kJson ? to_json(value) : print_struct(fields);
}

void append_unicode_escape(std::string& out, unsigned code) {
  char buffer[8];
  std::snprintf(buffer, sizeof(buffer), "\\u%04x", code);
  out += buffer;
}

/// Length of the valid UTF-8 sequence at `text[i]`, or 0.
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = byte(i);
  const size_t n = lead < 0x80                   ? 1
                   : lead >= 0xC2 && lead < 0xE0 ? 2
                   : lead >= 0xE0 && lead < 0xF0 ? 3
                   : lead >= 0xF0 && lead < 0xF5 ? 4
                                                 : 0;
  if (n == 0 || i + n > text.size()) return 0;
  for (size_t k = 1; k < n; ++k) {
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
  }
  if (lead == 0xE0 && byte(i + 1) < 0xA0) return 0;
  if (lead == 0xED && byte(i + 1) >= 0xA0) return 0;
  if (lead == 0xF0 && byte(i + 1) < 0x90) return 0;
  if (lead == 0xF4 && byte(i + 1) >= 0x90) return 0;
  return n;
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const size_t n = utf8_length(text, i);
    if (n == 0) {
      out += "\\ufffd";
      ++i;
      continue;
    }
    const auto c = static_cast<unsigned char>(text[i]);
    if (n == 1) {
      switch (c) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        default:
          if (c < 0x20 || c == '<' || c == '>' || c == '&' || c == 0x7F) {
            if (c == 0x7F) {
              out += static_cast<char>(c);
            } else {
              append_unicode_escape(out, c);
            }
          } else {
            out += static_cast<char>(c);
          }
      }
    } else if (text.substr(i, n) == "\u2028") {
      out += "\\u2028";
    } else if (text.substr(i, n) == "\u2029") {
      out += "\\u2029";
    } else {
      out += text.substr(i, n);
    }
    i += n;
  }
  return out + "\"";
}

std::string json_number(double value) {
  const double magnitude = std::fabs(value);
  char buffer[512];
  const bool scientific = magnitude != 0.0 && (magnitude < 1e-6 || magnitude >= 1e21);
  auto end = std::to_chars(buffer, buffer + sizeof(buffer), value,
                           scientific ? std::chars_format::scientific : std::chars_format::fixed);
  std::string out(buffer, end.ptr);
  // encoding/json writes e-9, not e-09.
  const size_t n = out.size();
  if (scientific && n >= 4 && out[n - 4] == 'e' && out[n - 3] == '-' && out[n - 2] == '0') {
    out.erase(n - 2, 1);
  }
  return out;
}

bool is_empty(const Value& value) {
  if (value.as_struct()) return false;
  return !value.truth();
}

}  // namespace

std::string print_value(const Value& value) {
  return value.is_nil() ? "<no value>" : print_nested(value);
}

std::string to_json(const Value& value) {
  if (value.is_nil()) return "null";
  if (const bool* flag = value.as_bool()) return *flag ? "true" : "false";
  if (const int64_t* number = value.as_int()) return std::to_string(*number);
  if (const double* number = value.as_float()) return json_number(*number);
  if (const std::string* text = value.as_string()) return json_string(*text);
  std::string out;
  if (const List* list = value.as_list()) {
    if (!list->json_text.empty()) return list->json_text;
    for (const Value& item : list->items)
      out += (out.empty() ? "" : ",") + to_json(item);
    return "[" + out + "]";
  }
  if (const Map* map = value.as_map()) {
    for (const auto& [key, item] : map->items) {
      out += (out.empty() ? "" : ",") + json_string(key) + ":" + to_json(item);
    }
    return "{" + out + "}";
  }
  for (const Field& field : value.as_struct()->fields) {
    if (field.omit == Omit::kEmpty && is_empty(field.value)) continue;
    out += (out.empty() ? "" : ",") + json_string(field.json_name) + ":" + to_json(field.value);
  }
  return "{" + out + "}";
}

}  // namespace dsctl::templates::go
