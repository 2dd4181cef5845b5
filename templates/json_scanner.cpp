#include "templates/json_scanner.h"

#include <cctype>

#include "templates/message.h"

namespace dsctl::templates {
namespace {

constexpr int kMaxDepth = 200;  // a recursive parser reads the value afterwards

bool is_space(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

bool is_name_key(std::string_view key) {
  return key == "name" || key == "tool_name" || key == "function";
}

bool is_arguments_key(std::string_view key) {
  return key == "arguments" || key == "parameters";
}

bool is_other_key(std::string_view key) {
  return key == "id" || key == "type" || key == "tool_call_id";
}

std::string string_value(std::string_view quoted) {
  const Json value = Json::parse(quoted, nullptr, /*allow_exceptions=*/false);
  return value.is_string() ? value.get<std::string>() : std::string();
}

/// The arguments as an object's text: absent and null are an empty one, a text may hold one.
std::optional<std::string> arguments_text(const Json& value) {
  if (value.is_object()) return value.dump();
  if (value.is_null()) return "{}";
  if (!value.is_string()) return std::nullopt;
  const auto& text = value.get_ref<const std::string&>();
  if (text.empty()) return "{}";
  if (!is_json_object(text)) return std::nullopt;
  return text;
}

}  // namespace

JsonScanner::Status JsonScanner::take(char c) {
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      if (depth_ == 0) return Status::kDone;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      return Status::kBroken;
    }
    return Status::kMore;
  }
  if (c == '"') {
    in_string_ = true;
    return Status::kMore;
  }
  if (c == '{' || c == '[') {
    open_ += c;
    return ++depth_ > kMaxDepth ? Status::kBroken : Status::kMore;
  }
  if (depth_ == 0) return Status::kBroken;
  if (c == '}' || c == ']') {
    if (open_.back() != (c == '}' ? '{' : '[')) return Status::kBroken;
    open_.pop_back();
    return --depth_ == 0 ? Status::kDone : Status::kMore;
  }
  const bool may_be = std::isalnum(static_cast<unsigned char>(c)) != 0 || is_space(c) || c == ',' ||
                      c == ':' || c == '-' || c == '+' || c == '.';
  return may_be ? Status::kMore : Status::kBroken;
}

JsonCallReader::Status JsonCallReader::take(char c) {
  const bool was_in_string = scanner_.in_string();
  const int old_depth = scanner_.depth();
  text_ += c;
  const Status status = scanner_.take(c);
  if (status == Status::kBroken) return status;
  if (!was_in_string && scanner_.in_string()) string_begin_ = text_.size() - 1;
  if (was_in_string && !scanner_.in_string() && old_depth == 1) {
    on_string(std::string_view(text_).substr(string_begin_));
  } else if (!was_in_string) {
    if (old_depth == 1) on_top_level(c);
    if (old_depth == 2 && scanner_.depth() == 1 && arguments_begin_ && !arguments_end_) {
      arguments_end_ = text_.size();
    }
  }
  if (status != Status::kDone) return status;
  return finish() ? Status::kDone : Status::kBroken;
}

/// A byte outside strings in the object itself.
void JsonCallReader::on_top_level(char c) {
  if (c == ':') {
    in_value_ = true;
    value_begin_ = 0;
  } else if (c == ',' || c == '}') {
    in_value_ = false;
  } else if (in_value_ && value_begin_ == 0 && !is_space(c)) {
    value_begin_ = text_.size() - 1;
    if (c == '{' && is_arguments_key(key_) && !arguments_begin_) arguments_begin_ = value_begin_;
  }
}

/// A string of the object itself: a key or a value.
void JsonCallReader::on_string(std::string_view quoted) {
  if (!in_value_) {
    key_ = string_value(quoted);
    if (!is_name_key(key_) && !is_arguments_key(key_) && !is_other_key(key_)) {
      has_foreign_key_ = true;
    }
  } else if (is_name_key(key_) && !name_) {
    name_ = string_value(quoted);
  }
}

/// The object is complete: what its parser says counts.
bool JsonCallReader::finish() {
  Json object = Json::parse(text_, nullptr, /*allow_exceptions=*/false);
  // OpenAI's own form: {"type": "function", "function": {...}}.
  if (object.is_object() && object.contains("function") && object["function"].is_object()) {
    Json inner = object["function"];
    object = std::move(inner);
  }
  if (!object.is_object()) return false;
  for (const char* key : {"name", "tool_name", "function"}) {
    const auto found = object.find(key);
    if (found == object.end() || !found->is_string()) continue;
    if (!name_) name_ = found->get<std::string>();
    break;
  }
  if (!name_ || name_->empty()) return false;
  Json value;
  for (const char* key : {"arguments", "parameters"}) {
    const auto found = object.find(key);
    if (found == object.end()) continue;
    has_arguments_ = true;
    value = *found;
    break;
  }
  if (arguments_begin_) return arguments_end_.has_value();
  arguments_ = arguments_text(value);
  return arguments_.has_value();
}

std::string JsonCallReader::take_arguments() {
  std::string more;
  if (arguments_begin_) {
    const size_t begin = *arguments_begin_ + n_taken_;
    more = text_.substr(begin, arguments_end_.value_or(text_.size()) - begin);
  } else if (arguments_) {
    more = arguments_->substr(n_taken_);
  }
  n_taken_ += more.size();
  return more;
}

bool is_json_object(std::string_view text) {
  const size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos || text[begin] != '{') return false;
  JsonScanner scanner;
  for (size_t i = begin; i < text.size(); ++i) {
    const JsonScanner::Status status = scanner.take(text[i]);
    if (status == JsonScanner::Status::kBroken) return false;
    if (status == JsonScanner::Status::kDone) {
      return text.find_first_not_of(" \t\r\n", i + 1) == std::string_view::npos &&
             Json::accept(text);
    }
  }
  return false;
}

}  // namespace dsctl::templates
