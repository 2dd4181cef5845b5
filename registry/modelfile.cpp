#include "registry/modelfile.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

using Json = nlohmann::json;

constexpr std::array<std::pair<std::string_view, Instruction>, 11> kInstructions = {{
    {"FROM", Instruction::kFrom},
    {"PARAMETER", Instruction::kParameter},
    {"TEMPLATE", Instruction::kTemplate},
    {"SYSTEM", Instruction::kSystem},
    {"ADAPTER", Instruction::kAdapter},
    {"LICENSE", Instruction::kLicense},
    {"MESSAGE", Instruction::kMessage},
    {"DRAFT", Instruction::kDraft},
    {"RENDERER", Instruction::kRenderer},
    {"PARSER", Instruction::kParser},
    {"REQUIRES", Instruction::kRequires},
}};

std::string_view instruction_name(Instruction instruction) {
  for (const auto& [name, value] : kInstructions) {
    if (value == instruction) return name;
  }
  return "";
}

void append_utf8(std::string& text, char32_t c) {
  const auto put = [&text](char32_t byte) { text += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6), put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F)), put(0x80 | (c & 0x3F));
  }
}

constexpr char32_t kReplacement = 0xFFFD;

/// The code point at `bytes[pos]`, moving `pos` past it; U+FFFD for a byte that is no UTF-8.
char32_t next_utf8(std::string_view bytes, size_t& pos) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char first = at(pos++);
  if (first < 0x80) return first;
  const int n_more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
  if (first < 0xC2 || first > 0xF4 || bytes.size() - pos < static_cast<size_t>(n_more)) {
    return kReplacement;
  }
  char32_t c = first & (0x3F >> n_more);
  for (int i = 0; i < n_more; ++i) {
    const unsigned char byte = at(pos + static_cast<size_t>(i));
    if ((byte & 0xC0) != 0x80) return kReplacement;
    c = c << 6 | (byte & 0x3F);
  }
  constexpr char32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
  if (c < kSmallest[n_more] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return kReplacement;
  pos += static_cast<size_t>(n_more);
  return c;
}

std::u32string decode_utf16(std::string_view bytes, bool big_endian) {
  std::u32string text;
  const auto unit = [&](size_t i) {
    const auto a = static_cast<unsigned char>(bytes[i]);
    const auto b = static_cast<unsigned char>(bytes[i + 1]);
    return static_cast<char32_t>(big_endian ? a << 8 | b : b << 8 | a);
  };
  for (size_t i = 0; i + 1 < bytes.size(); i += 2) {
    char32_t c = unit(i);
    if (c >= 0xD800 && c < 0xDC00 && i + 3 < bytes.size()) {
      const char32_t low = unit(i + 2);
      if (low >= 0xDC00 && low < 0xE000) {
        c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
        i += 2;
      }
    }
    text += c >= 0xD800 && c < 0xE000 ? kReplacement : c;
  }
  if (bytes.size() % 2 != 0) text += kReplacement;
  return text;
}

std::u32string decode(std::string_view bytes) {
  if (bytes.starts_with("\xFE\xFF")) return decode_utf16(bytes.substr(2), true);
  if (bytes.starts_with("\xFF\xFE")) return decode_utf16(bytes.substr(2), false);
  if (bytes.starts_with("\xEF\xBB\xBF")) bytes.remove_prefix(3);
  std::u32string text;
  text.reserve(bytes.size());
  for (size_t pos = 0; pos < bytes.size();)
    text += next_utf8(bytes, pos);
  return text;
}

bool is_newline(char32_t c) {
  return c == '\n' || c == '\r';
}

bool is_blank(char32_t c) {
  return c == ' ' || c == '\t';
}

// Dropped from values, as Ollama drops what can't be printed. Format characters (zero-width
// joiners) stay: emoji and several scripts need them.
bool is_dropped(char32_t c) {
  return (c < 0x20 && !is_newline(c) && c != '\t') || (c >= 0x7F && c < 0xA0) || c == 0xFEFF;
}

bool is_trimmed(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

std::string_view trim(std::string_view text) {
  while (!text.empty() && is_trimmed(text.front()))
    text.remove_prefix(1);
  while (!text.empty() && is_trimmed(text.back()))
    text.remove_suffix(1);
  return text;
}

/// What a value means whose raw text begins with `"`, or nothing while its end is not seen: a quote
/// ends a value only at the end of a line, so quotes inside need no escape.
std::optional<std::string_view> unquote(std::string_view raw) {
  constexpr std::string_view kTriple = "\"\"\"";
  if (raw.starts_with(kTriple)) {
    if (raw.size() < 6 || !raw.ends_with(kTriple)) return std::nullopt;
    return raw.substr(3, raw.size() - 6);
  }
  if (raw.size() < 2 || !raw.ends_with('"')) return std::nullopt;
  return raw.substr(1, raw.size() - 2);
}

std::string quote(const std::string& value) {
  const bool bare = !value.empty() && value.front() != '"' && trim(value) == value &&
                    value.find_first_of("\r\n") == std::string::npos;
  if (bare) return value;
  const char* mark = value.find('"') == std::string::npos ? "\"" : "\"\"\"";
  return mark + value + mark;
}

bool is_semantic_version(std::string_view text) {
  if (text.starts_with('v')) text.remove_prefix(1);
  const size_t core_end = std::min(text.find_first_of("-+"), text.size());
  std::string_view core = text.substr(0, core_end);
  const std::string_view suffix = text.substr(core_end);
  int n_numbers = 0;
  while (true) {
    const size_t dot = std::min(core.find('.'), core.size());
    const std::string_view number = core.substr(0, dot);
    if (number.empty() || number.find_first_not_of("0123456789") != std::string_view::npos ||
        (number.size() > 1 && number.front() == '0')) {
      return false;
    }
    ++n_numbers;
    if (dot == core.size()) break;
    core.remove_prefix(dot + 1);
  }
  if (suffix.empty()) return n_numbers <= 3;
  const auto allowed = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '-' ||
           c == '.' || c == '+';
  };
  return n_numbers == 3 && suffix.size() > 1 && std::all_of(suffix.begin(), suffix.end(), allowed);
}

class Parser {
 public:
  Parser(std::u32string text, std::string_view label) : text_(std::move(text)), label_(label) {}

  std::vector<ModelfileCommand> parse() {
    std::vector<ModelfileCommand> commands;
    while (skip_to_instruction()) {
      if (commands.size() == Modelfile::kMaxCommands) {
        fail(line_, column_,
             "more than " + std::to_string(Modelfile::kMaxCommands) + " instructions");
      }
      commands.push_back(parse_command());
    }
    return commands;
  }

  std::vector<std::string> take_warnings() { return std::move(warnings_); }

 private:
  [[noreturn]] void fail(int line, int column, const std::string& message) const {
    throw Error(position(line, column) + message);
  }

  std::string position(int line, int column) const {
    return label_ + ":" + std::to_string(line) + ":" + std::to_string(column) + ": ";
  }

  bool at_end() const { return pos_ == text_.size(); }
  char32_t peek() const { return text_[pos_]; }

  char32_t take() {
    const char32_t c = text_[pos_++];
    if (c == 0) {
      fail(line_, column_, "a zero byte; expected text in UTF-8, or UTF-16 with a byte order mark");
    }
    if (c == kReplacement && !warned_encoding_) {
      warned_encoding_ = true;
      warnings_.push_back(position(line_, column_) + "is no valid UTF-8; read as U+FFFD");
    }
    const bool after_return = last_ == '\r';
    last_ = c;
    if (c == '\r' || (c == '\n' && !after_return)) ++line_;
    if (is_newline(c)) {
      column_ = 1;
    } else {
      ++column_;
    }
    return c;
  }

  /// Moves past white space and comments; false at the end of the text.
  bool skip_to_instruction() {
    while (!at_end()) {
      if (peek() == '#') {
        while (!at_end() && !is_newline(peek()))
          take();
      } else if (is_newline(peek()) || is_blank(peek()) || peek() == 0xFEFF) {
        take();
      } else {
        return true;
      }
    }
    return false;
  }

  void skip_blanks() {
    while (!at_end() && is_blank(peek()))
      take();
  }

  /// Characters up to the next white space; at most `kMaxWord` are kept, for messages.
  std::string take_word() {
    constexpr size_t kMaxWord = 64;
    std::string word;
    while (!at_end() && !is_blank(peek()) && !is_newline(peek())) {
      const char32_t c = take();
      if (is_dropped(c) || word.size() >= kMaxWord) {
        word += word.ends_with("...") ? "" : "...";
      } else {
        append_utf8(word, c);
      }
    }
    return word;
  }

  ModelfileCommand parse_command() {
    ModelfileCommand command;
    command.line = line_;
    command.column = column_;
    command.instruction = parse_instruction(command);
    skip_blanks();
    const int key_line = line_;
    const int key_column = column_;
    if (command.instruction == Instruction::kParameter ||
        command.instruction == Instruction::kMessage) {
      command.key = take_word();
      skip_blanks();
    }
    if (command.instruction == Instruction::kMessage) check_role(command, key_line, key_column);
    if (command.instruction == Instruction::kParameter) check_name(command, key_line, key_column);
    command.value_line = line_;
    command.value_column = column_;
    command.value = parse_value(command);
    check_value(command);
    return command;
  }

  Instruction parse_instruction(const ModelfileCommand& command) {
    std::string word = take_word();
    std::string upper = word;
    for (char& c : upper) {
      if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
    }
    std::string names;
    for (const auto& [name, instruction] : kInstructions) {
      if (upper == name) return instruction;
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    if (word.starts_with("GGUF")) {
      fail(command.line, command.column,
           "is a GGUF file, expected a Modelfile: a text with the line FROM and that file's path");
    }
    fail(command.line, command.column,
         "'" + word + "' is no instruction, expected one of " + names);
  }

  void check_role(const ModelfileCommand& command, int line, int column) const {
    if (command.key == "system" || command.key == "user" || command.key == "assistant") return;
    fail(line, column,
         "message role must be one of \"system\", \"user\", or \"assistant\", found \"" +
             command.key + "\"");
  }

  std::string parse_value(const ModelfileCommand& command) {
    const std::string name(instruction_name(command.instruction));
    if (at_end() || is_newline(peek())) {
      fail(line_, column_,
           name + (command.key.empty() ? "" : " " + command.key) +
               ": expected a value on this line (\"\" for an empty one)");
    }
    std::string raw;
    if (peek() != '"') {
      while (!at_end() && !is_newline(peek()))
        append_value(raw, take());
      return std::string(trim(raw));
    }
    size_t trimmed_size = 0;  // of `raw` without the white space at its end
    while (true) {
      if (at_end() || is_newline(peek())) {
        const auto value = unquote(std::string_view(raw).substr(0, trimmed_size));
        if (value) return std::string(*value);
      }
      if (at_end()) {
        fail(command.value_line, command.value_column,
             name + ": the quote is not closed; the closing one must be the last on its line");
      }
      append_value(raw, take());
      if (!raw.empty() && !is_trimmed(raw.back())) trimmed_size = raw.size();
    }
  }

  static void append_value(std::string& raw, char32_t c) {
    if (!is_dropped(c)) append_utf8(raw, c);
  }

  void check_name(const ModelfileCommand& command, int line, int column) {
    if (command.key.empty()) fail(line, column, "PARAMETER: expected a name and a value");
    const ParameterInfo* info = find_parameter(command.key);
    if (!info) {
      try {
        parameter_to_json(command.key, "");
      } catch (const Error& error) {
        fail(line, column, error.what());
      }
    }
    const std::string where = position(line, column) + command.key;
    if (info->deprecated) warnings_.push_back(where + ": has no effect any more; ignored");
    if (info->type == ParameterType::kStringList) return;
    if (!seen_parameters_.insert(command.key).second) {
      warnings_.push_back(where + ": given more than once; the last value counts");
    }
  }

  void check_value(const ModelfileCommand& command) const {
    const std::string name(instruction_name(command.instruction));
    const auto refuse = [&](const std::string& message) {
      fail(command.value_line, command.value_column, message);
    };
    switch (command.instruction) {
      case Instruction::kParameter:
        try {
          parameter_to_json(command.key, command.value);
        } catch (const Error& error) {
          refuse(error.what());
        }
        return;
      case Instruction::kRequires:
        if (!is_semantic_version(command.value)) {
          refuse("REQUIRES: \"" + command.value.substr(0, 60) +
                 "\" is no version, expected one like 0.14.0");
        }
        return;
      case Instruction::kFrom:
      case Instruction::kAdapter:
      case Instruction::kDraft:
      case Instruction::kRenderer:
      case Instruction::kParser:
        if (trim(command.value).empty()) refuse(name + ": the value is empty");
        return;
      case Instruction::kTemplate:
      case Instruction::kSystem:
      case Instruction::kLicense:
      case Instruction::kMessage:
        return;
    }
  }

  std::u32string text_;
  std::string label_;
  std::vector<std::string> warnings_;
  size_t pos_ = 0;
  int line_ = 1;
  int column_ = 1;
  char32_t last_ = 0;
  bool warned_encoding_ = false;
  std::set<std::string> seen_parameters_;
};

}  // namespace

Modelfile::Modelfile(std::vector<ModelfileCommand> commands) : commands_(std::move(commands)) {}

Modelfile Modelfile::parse(std::string_view bytes, std::string_view label) {
  if (bytes.size() > kMaxBytes) {
    throw Error(std::string(label) + ": " + std::to_string(bytes.size()) +
                " bytes, expected a Modelfile of at most " + std::to_string(kMaxBytes));
  }
  Parser parser(decode(bytes), label);
  Modelfile modelfile;
  modelfile.commands_ = parser.parse();
  modelfile.warnings_ = parser.take_warnings();
  if (modelfile.values(Instruction::kFrom).empty()) {
    throw Error(std::string(label) + ": no FROM line: expected FROM with a GGUF file or a model");
  }
  return modelfile;
}

std::vector<std::string> Modelfile::values(Instruction instruction) const {
  std::vector<std::string> values;
  for (const ModelfileCommand& command : commands_) {
    if (command.instruction == instruction) values.push_back(command.value);
  }
  return values;
}

std::optional<std::string> Modelfile::last(Instruction instruction) const {
  for (auto command = commands_.rbegin(); command != commands_.rend(); ++command) {
    if (command->instruction == instruction) return command->value;
  }
  return std::nullopt;
}

std::string Modelfile::parameters_json() const {
  Json parameters = Json::object();
  for (const ModelfileCommand& command : commands_) {
    if (command.instruction != Instruction::kParameter) continue;
    const ParameterInfo* info = find_parameter(command.key);
    if (info && info->deprecated) continue;
    Json value = Json::parse(parameter_to_json(command.key, command.value));
    Json& slot = parameters[command.key];
    if (slot.is_array() && value.is_array()) {
      slot.insert(slot.end(), value.begin(), value.end());
    } else {
      slot = std::move(value);
    }
  }
  return parameters.dump();
}

std::vector<StoredMessage> Modelfile::messages() const {
  std::vector<StoredMessage> messages;
  for (const ModelfileCommand& command : commands_) {
    if (command.instruction == Instruction::kMessage) {
      messages.push_back({command.key, command.value});
    }
  }
  return messages;
}

std::string Modelfile::print() const {
  std::string text;
  for (const ModelfileCommand& command : commands_) {
    text += std::string(instruction_name(command.instruction)) + " ";
    if (!command.key.empty()) text += command.key + " ";
    text += quote(command.value) + "\n";
  }
  return text;
}

}  // namespace dsctl::registry
