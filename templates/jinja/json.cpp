#include "templates/jinja/json.h"

#include <algorithm>
#include <cmath>

#include "templates/jinja/operations.h"
#include "templates/jinja/unicode.h"

namespace dsctl::templates::jinja {
namespace {

Value convert(const Json& json, Budget& budget, int depth) {
  check_depth(depth);
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::boolean(json.get<bool>());
    case Json::value_t::number_integer:
      return Value::integer(json.get<int64_t>());
    case Json::value_t::number_unsigned:
      return Value::integer(json.get<uint64_t>());
    case Json::value_t::number_float:
      return Value::real(json.get<double>());
    case Json::value_t::string:
      return Value::string(json.get_ref<const std::string&>());
    case Json::value_t::array: {
      Values items;
      items.reserve(json.size());
      for (const Json& item : json)
        items.push_back(convert(item, budget, depth + 1));
      return make_list(budget, std::move(items));
    }
    case Json::value_t::object: {
      auto dict = std::make_shared<Dict>();
      for (const auto& [key, item] : json.items()) {
        dict->set(Value::string(key), convert(item, budget, depth + 1), budget);
      }
      return Value::object(std::move(dict));
    }
    case Json::value_t::null:
    case Json::value_t::binary:
    case Json::value_t::discarded:
      break;
  }
  return {};
}

std::string json_float(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return format_float(value);
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, Budget& budget) : style_(style), budget_(budget) {}

  void write(const Value& value, size_t level) {
    budget_.charge_steps(1);
    switch (value.kind()) {
      case Value::Kind::kNone:
        return append("null");
      case Value::Kind::kBool:
        return append(value.as_bool() ? "true" : "false");
      case Value::Kind::kInt:
        return append(format_int(value.as_int()));
      case Value::Kind::kFloat:
        return append(json_float(value.as_double()));
      case Value::Kind::kString:
        return write_string(value.as_string());
      case Value::Kind::kUndefined:
      case Value::Kind::kObject:
        break;
    }
    if (value.is(Object::Type::kList) || value.is(Object::Type::kTuple)) {
      return write_list(static_cast<const Sequence*>(value.as_object())->items, level);
    }
    if (value.is(Object::Type::kDict)) {
      return write_dict(*static_cast<const Dict*>(value.as_object()), level);
    }
    fail_type("Object of type " + type_name(value) + " is not JSON serializable");
  }

  std::string take() { return std::move(out_); }

 private:
  void append(std::string_view text) {
    budget_.charge_string(text.size());
    if (out_.size() + text.size() > budget_.limits().max_string_bytes) {
      throw JinjaError(ErrorKind::kLimit, "the template makes too long a string");
    }
    out_ += text;
  }

  void new_line(size_t level) {
    if (!style_.indent) return;
    append("\n");
    for (size_t i = 0; i < level; ++i)
      append(*style_.indent);
  }

  void write_list(const Values& items, size_t level) {
    if (items.empty()) return append("[]");
    append("[");
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) append(style_.item_separator);
      new_line(level + 1);
      write(items[i], level + 1);
    }
    new_line(level);
    append("]");
  }

  void write_dict(const Dict& dict, size_t level) {
    if (dict.entries().empty()) return append("{}");
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries())
      entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(entries.begin(), entries.end(),
                       [&](const Dict::Entry* left, const Dict::Entry* right) {
                         return compare(Ordering::kLess, left->first, right->first, budget_);
                       });
    }
    append("{");
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) append(style_.item_separator);
      new_line(level + 1);
      write_key(entries[i]->first);
      append(style_.key_separator);
      write(entries[i]->second, level + 1);
    }
    new_line(level);
    append("}");
  }

  void write_key(const Value& key) {
    if (key.is_string()) return write_string(key.as_string());
    if (key.is_number() || key.is_none()) {
      append("\"");
      write(key, 0);
      return append("\"");
    }
    fail_type("keys must be str, int, float, bool or None, not " + type_name(key));
  }

  void write_string(std::string_view text) {
    constexpr std::string_view kHex = "0123456789abcdef";
    std::string out = "\"";
    const auto escape = [&](uint32_t unit) {
      out += "\\u";
      for (int shift = 12; shift >= 0; shift -= 4)
        out += kHex[unit >> shift & 15];
    };
    for (size_t pos = 0; pos < text.size();) {
      const char c = text[pos];
      const size_t short_form = std::string_view("\"\\\n\r\t\b\f").find(c);
      if (short_form != std::string_view::npos) {
        out += '\\';
        out += "\"\\nrtbf"[short_form];
        ++pos;
        continue;
      }
      const CodePoint point = decode(text, pos);
      if (point.code < 0x20 || (style_.ensure_ascii && point.code == 0x7f)) {
        escape(point.code);
      } else if (point.code < 0x80 || !style_.ensure_ascii) {
        out += text.substr(pos, point.size_bytes);
      } else if (point.code < 0x10000) {
        escape(point.code);
      } else {
        escape(0xD800 + ((point.code - 0x10000) >> 10));
        escape(0xDC00 + ((point.code - 0x10000) & 0x3FF));
      }
      pos += point.size_bytes;
    }
    out += '"';
    append(out);
  }

  const JsonStyle& style_;
  Budget& budget_;
  std::string out_;
};

}  // namespace

Value from_json(const Json& json, Budget& budget) {
  return convert(json, budget, 1);
}

std::string to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  JsonWriter writer(style, budget);
  writer.write(value, 0);
  return writer.take();
}

}  // namespace dsctl::templates::jinja
