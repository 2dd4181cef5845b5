// Finds where a JSON value that arrives in pieces ends, and reads a tool call out of an object
// while it is being written.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dsctl::templates {

/// Follows one value, byte by byte, closely enough to know its end; whether the value is valid is
/// for a parser to say then.
class JsonScanner {
 public:
  enum class Status { kMore, kDone, kBroken };

  /// The next byte. kDone with the byte that ends an object, a list or a string; kBroken at one
  /// that no JSON has there, and for values that are none of these.
  Status take(char c);
  /// Objects and lists that are open.
  int depth() const { return depth_; }
  bool in_string() const { return in_string_; }

 private:
  std::string open_;  // the brackets that are open
  int depth_ = 0;
  bool in_string_ = false;
  bool escaped_ = false;
};

/// Reads {"name": ..., "arguments": {...}} and its variations: "tool_name" or "function" for the
/// name, "parameters" for the arguments, keys in any order, others beside them.
class JsonCallReader {
 public:
  using Status = JsonScanner::Status;

  /// The next byte, the first one is '{'. kBroken also when the whole object is no call.
  Status take(char c);
  /// The object so far.
  const std::string& text() const { return text_; }
  /// The name, once it is known.
  const std::optional<std::string>& name() const { return name_; }
  /// True once there is a key that no call has.
  bool has_foreign_key() const { return has_foreign_key_; }
  /// True once the arguments' object has begun.
  bool has_begun_arguments() const { return arguments_begin_.has_value(); }
  /// Whether the arguments were given at all; after kDone.
  bool has_arguments() const { return has_arguments_; }
  /// More of the arguments' text, each part once. Call only when the name is known. All of it has
  /// been returned after kDone.
  std::string take_arguments();

 private:
  void on_top_level(char c);
  void on_string(std::string_view quoted);
  bool finish();

  JsonScanner scanner_;
  std::string text_;
  std::optional<std::string> name_;
  std::string key_;
  size_t string_begin_ = 0;
  size_t value_begin_ = 0;
  bool in_value_ = false;
  bool has_foreign_key_ = false;
  bool has_arguments_ = false;
  // The arguments' object as it stands in the text, or what it became.
  std::optional<size_t> arguments_begin_;
  std::optional<size_t> arguments_end_;
  std::optional<std::string> arguments_;
  size_t n_taken_ = 0;
};

/// True when `text` is a valid JSON object, not nested too deeply.
bool is_json_object(std::string_view text);

}  // namespace dsctl::templates
