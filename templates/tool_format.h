// How a family of models writes its tool calls: the markers around them and the order of their
// parts. Read off the text of the chat template, never off a model's name.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::templates {

/// One way to write calls. Reading is lenient (see ToolCallParser); the texts under "writing" are
/// what a template itself would put there, for a grammar that makes a model call a tool.
struct ToolFormat {
  std::string family;

  // Reading.
  std::string begin;                 // opens calls; empty: only a bare object at the answer's start
  std::string end;                   // closes them, may be missing
  std::string call_begin;            // before each call inside begin and end
  std::string name_end;              // after a name written outside JSON; empty: never so
  std::string call_end;              // after each call's arguments
  std::vector<std::string> dropped;  // markers around plain text, no part of it
  bool starts_inside = false;        // the prompt ends with `begin`
  bool is_json = false;              // calls are JSON objects, also without `begin` at the start
  bool is_python = false;            // after `begin` may come name.call(key="value") or code

  // Writing: open, then calls with `separator` between, then close. A call is before_name, the
  // name, before_arguments, the arguments' JSON object, after_arguments.
  std::string open;
  std::string before_name;
  std::string before_arguments;
  std::string after_arguments;
  std::string separator;
  std::string close;
  /// What a written call surely begins with, and no other text; empty when there is no such thing.
  std::string trigger;
  bool is_parallel = true;  // several calls in one answer

  /// Every marker that may be a token of its own.
  std::vector<std::string> markers() const;
};

/// The format of a template with this text, when it is a known one.
std::optional<ToolFormat> find_tool_format(std::string_view template_source);

/// Calls as JSON objects after `tag`, or at the answer's start when it is empty or "{": what
/// Ollama infers from a Go template.
ToolFormat generic_tool_format(std::string_view tag);

}  // namespace dsctl::templates
