// The conversation as templates see it, in OpenAI's shape, whatever API it came from.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace dsctl::templates {

/// Key order matters to templates, so JSON values keep it.
using Json = nlohmann::ordered_json;

struct ToolCall {
  std::string id;
  std::string name;
  Json arguments = Json::object();  // a string when they are no object
};

struct Message {
  std::string role;  // system, user, assistant, tool
  std::string content;
  std::optional<std::string> thinking;
  std::vector<ToolCall> tool_calls;
  std::string tool_name;     // of a tool message
  std::string tool_call_id;  // of a tool message
};

/// Everything a template may ask for.
struct RenderInput {
  std::vector<Message> messages;
  Json tools;  // OpenAI's list of tools, or null
  bool add_generation_prompt = true;
  std::optional<bool> think;  // absent: the template's own default
  std::string think_level;    // "", low, medium, high, max
  std::string suffix;         // fill in the middle
  std::string bos_token;
  std::string eos_token;
  std::map<std::string, Json>
      extra;  // more variables for Jinja (reasoning_effort, date_string, ...)
};

}  // namespace dsctl::templates
