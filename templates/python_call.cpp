// A tool call in Python's form, as Llama 3 writes calls of built-in tools.
#include <cctype>
#include <optional>

#include "templates/message.h"
#include "templates/tool_call_parser.h"

namespace dsctl::templates {
namespace {

constexpr int kMaxDepth = 50;

/// Reads Python literals; every function returns nothing where the text is something else.
class PythonReader {
 public:
  explicit PythonReader(std::string_view text) : text_(text) {}

  /// name.call(key=value, ...) or name(key=value, ...), and nothing after it.
  bool read_call(std::string& name, Json& arguments) {
    name = read_name();
    if (take('.')) {
      if (read_name() != "call") return false;
    }
    if (name.empty() || !take('(')) return false;
    arguments = Json::object();
    while (!take(')')) {
      const std::string key = read_name();
      if (key.empty() || !take('=')) return false;
      auto value = read_value(0);
      if (!value) return false;
      arguments[key] = *std::move(value);
      if (take(',')) continue;
      if (!take(')')) return false;
      break;
    }
    skip_space();
    return pos_ == text_.size();
  }

 private:
  void skip_space() {
    while (pos_ < text_.size() && std::isspace(static_cast<unsigned char>(text_[pos_])) != 0)
      ++pos_;
  }

  bool take(char c) {
    skip_space();
    if (pos_ >= text_.size() || text_[pos_] != c) return false;
    ++pos_;
    return true;
  }

  std::string read_name() {
    skip_space();
    std::string name;
    while (pos_ < text_.size()) {
      const char c = text_[pos_];
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_' && c != '-') break;
      name += c;
      ++pos_;
    }
    return name;
  }

  std::optional<Json> read_value(int depth) {
    skip_space();
    if (pos_ >= text_.size() || depth > kMaxDepth) return std::nullopt;
    const char c = text_[pos_];
    if (c == '"' || c == '\'') return read_string();
    if (c == '[' || c == '(') return read_list(c == '[' ? ']' : ')', depth);
    if (c == '{') return read_dict(depth);
    return read_word();
  }

  std::optional<Json> read_string() {
    const char quote = text_[pos_++];
    std::string value;
    while (pos_ < text_.size() && text_[pos_] != quote) {
      char c = text_[pos_++];
      if (c == '\\' && pos_ < text_.size()) {
        c = text_[pos_++];
        if (c == 'n') c = '\n';
        if (c == 't') c = '\t';
        if (c == 'r') c = '\r';
      }
      value += c;
    }
    if (pos_ >= text_.size()) return std::nullopt;
    ++pos_;
    return Json(std::move(value));
  }

  std::optional<Json> read_list(char end, int depth) {
    ++pos_;
    Json list = Json::array();
    while (!take(end)) {
      auto item = read_value(depth + 1);
      if (!item) return std::nullopt;
      list.push_back(*std::move(item));
      if (take(',')) continue;
      if (!take(end)) return std::nullopt;
      break;
    }
    return list;
  }

  std::optional<Json> read_dict(int depth) {
    ++pos_;
    Json dict = Json::object();
    while (!take('}')) {
      const auto key = read_value(depth + 1);
      if (!key || !key->is_string() || !take(':')) return std::nullopt;
      auto value = read_value(depth + 1);
      if (!value) return std::nullopt;
      dict[key->get<std::string>()] = *std::move(value);
      if (take(',')) continue;
      if (!take('}')) return std::nullopt;
      break;
    }
    return dict;
  }

  std::optional<Json> read_word() {
    const size_t begin = pos_;
    while (pos_ < text_.size() && (std::isalnum(static_cast<unsigned char>(text_[pos_])) != 0 ||
                                   text_[pos_] == '.' || text_[pos_] == '-' || text_[pos_] == '+'))
      ++pos_;
    const std::string_view word = text_.substr(begin, pos_ - begin);
    if (word == "True" || word == "true") return Json(true);
    if (word == "False" || word == "false") return Json(false);
    if (word == "None" || word == "null") return Json(nullptr);
    Json number = Json::parse(word, nullptr, /*allow_exceptions=*/false);
    if (!number.is_number()) return std::nullopt;
    return number;
  }

  std::string_view text_;
  size_t pos_ = 0;
};

}  // namespace

bool parse_python_call(std::string_view text, std::string& name, std::string& arguments) {
  Json values;
  if (!PythonReader(text).read_call(name, values)) return false;
  arguments = values.dump(-1, ' ', false, Json::error_handler_t::replace);
  return true;
}

}  // namespace dsctl::templates
