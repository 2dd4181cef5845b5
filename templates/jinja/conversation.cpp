#include "templates/jinja/conversation.h"

#include <cstdint>
#include <ctime>

#include "templates/jinja/json.h"

namespace dsctl::templates::jinja {
namespace {

/// System messages in front of, and separated by a line from, the next user message.
std::vector<Message> with_merged_system(const std::vector<Message>& messages) {
  std::vector<Message> merged;
  std::string pending;
  const auto flush = [&] {
    if (pending.empty()) return;
    merged.emplace_back();
    merged.back().role = "user";
    merged.back().content = pending;
    pending.clear();
  };
  for (const Message& message : messages) {
    if (message.role == "system" || message.role == "developer") {
      if (!pending.empty()) pending += "\n";
      pending += message.content;
      continue;
    }
    if (message.role != "user") flush();
    merged.push_back(message);
    if (message.role == "user" && !pending.empty()) {
      merged.back().content = pending + (message.content.empty() ? "" : "\n" + message.content);
      pending.clear();
    }
  }
  flush();
  return merged;
}

/// The same nine letters and digits for the same id.
std::string short_id(const std::string& id) {
  constexpr std::string_view kLetters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  uint64_t hash = 14695981039346656037ull;  // FNV-1a
  for (const char c : id)
    hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ull;
  std::string text;
  for (int i = 0; i < 9; ++i) {
    text += kLetters[hash % kLetters.size()];
    hash /= kLetters.size();
  }
  return text;
}

Json tool_call_json(const ToolCall& call, const MessageShape& shape) {
  Json json = Json::object();
  if (!call.id.empty() || shape.short_tool_call_ids) {
    json["id"] = shape.short_tool_call_ids ? short_id(call.id) : call.id;
  }
  json["type"] = "function";
  json["function"]["name"] = call.name;
  if (shape.arguments_as_text && !call.arguments.is_string()) {
    Budget budget{Limits{}};
    json["function"]["arguments"] = to_json(from_json(call.arguments, budget), {}, budget);
  } else {
    json["function"]["arguments"] = call.arguments;
  }
  return json;
}

Json message_json(const Message& message, const MessageShape& shape) {
  Json json = Json::object();
  json["role"] = message.role;
  if (shape.null_content && message.content.empty() && !message.tool_calls.empty()) {
    json["content"] = nullptr;
  } else if (shape.typed_content) {
    json["content"] = Json::array({{{"type", "text"}, {"text", message.content}}});
  } else {
    json["content"] = message.content;
  }
  if (message.thinking) {
    // Templates know the thoughts under either name.
    json["reasoning_content"] = *message.thinking;
    json["thinking"] = *message.thinking;
  }
  if (!message.tool_calls.empty()) {
    json["tool_calls"] = Json::array();
    for (const ToolCall& call : message.tool_calls) {
      json["tool_calls"].push_back(tool_call_json(call, shape));
    }
  }
  if (!message.tool_name.empty()) json["name"] = message.tool_name;
  if (!message.tool_call_id.empty()) {
    json["tool_call_id"] =
        shape.short_tool_call_ids ? short_id(message.tool_call_id) : message.tool_call_id;
  }
  return json;
}

}  // namespace

Json conversation_variables(const RenderInput& input, const MessageShape& shape) {
  Json variables = Json::object();
  Json& messages = variables["messages"] = Json::array();
  if (shape.merge_system) {
    for (const Message& message : with_merged_system(input.messages)) {
      messages.push_back(message_json(message, shape));
    }
  } else {
    for (const Message& message : input.messages)
      messages.push_back(message_json(message, shape));
  }
  // None rather than undefined when there are none, as Hugging Face passes it.
  if (!input.tools.empty()) {
    variables["tools"] = input.tools;
  } else if (!shape.undefined_tools) {
    variables["tools"] = nullptr;
  }
  if (shape.functions_text) {
    variables["functions"] = input.tools.empty() ? "[]" : input.tools.dump(4);
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    char text[32];
    std::strftime(text, sizeof(text), "%Y-%m-%d", localtime_r(&now, &local));
    variables["datetime"] = text;
  }
  variables["documents"] = nullptr;
  variables["add_generation_prompt"] = input.add_generation_prompt;
  variables["bos_token"] = input.bos_token;
  variables["eos_token"] = input.eos_token;
  if (input.think) {
    variables["enable_thinking"] = *input.think;
    variables["thinking"] = *input.think;
  }
  if (!input.think_level.empty()) variables["reasoning_effort"] = input.think_level;
  for (const auto& [name, value] : input.extra)
    variables[name] = value;
  return variables;
}

}  // namespace dsctl::templates::jinja
