// Anthropic's API: the fields of a request.
#include <algorithm>
#include <limits>
#include <set>
#include <utility>

#include "commands/error.h"
#include "commands/serve/api_anthropic.h"
#include "commands/serve/json_fields.h"
#include "commands/serve/tool_fields.h"

namespace dsctl::commands::serve {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
constexpr size_t kMaxMessages = 100'000;
constexpr size_t kMaxStopStrings = 64;
constexpr int64_t kMinBudgetTokens = 1024;

[[noreturn]] void not_supported(const std::string& field, const std::string& what) {
  throw ApiError(400, field + ": " + what + " is not supported yet", field);
}

[[noreturn]] void fail_content(const Json& content, const std::string& path) {
  throw ApiError(400,
                 "field \"" + path + "\": expected a string or an array of blocks, found " +
                     std::string(json_kind(content)),
                 path);
}

std::string element(const std::string& list, size_t index) {
  return list + "[" + std::to_string(index) + "]";
}

// A text, or blocks of text: a system prompt, the result of a tool.
std::string parse_text(const Json& content, const std::string& path) {
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) fail_content(content, path);
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string block_path = element(path, i);
    const Fields block(content[i], block_path);
    const std::string type = block.required_text("type");
    if (type != "text") not_supported(block_path + ".type", "\"" + type + "\"");
    text += block.text("text").value_or("");
  }
  return text;
}

templates::ToolCall parse_tool_use(const Fields& block, const std::string& path) {
  templates::ToolCall call;
  call.id = block.required_text("id");
  call.name = block.required_text("name");
  const Json* input = block.object("input");
  if (!input) {
    throw ApiError(400, "field \"" + path + ".input\" is missing: expected an object",
                   path + ".input");
  }
  call.arguments = *input;
  return call;
}

templates::Message parse_tool_result(const Fields& block, const std::string& path) {
  templates::Message message;
  message.role = "tool";
  message.tool_call_id = block.required_text("tool_use_id");
  block.flag("is_error");  // no template has a place for it: the text has to say it
  if (const Json* content = block.any("content")) {
    message.content = parse_text(*content, path + ".content");
  }
  return message;
}

// A turn: a text, or blocks. What tools returned becomes messages of its own, in `results`.
void parse_content(const Json& content, const std::string& path, templates::Message& message,
                   std::vector<templates::Message>& results) {
  if (content.is_string()) {
    message.content = content.get<std::string>();
    return;
  }
  if (!content.is_array()) fail_content(content, path);
  const bool is_assistant = message.role == "assistant";
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string block_path = element(path, i);
    const Fields block(content[i], block_path);
    const std::string type = block.required_text("type");
    if (type == "text") {
      message.content += block.text("text").value_or("");
    } else if (type == "thinking" && is_assistant) {
      message.thinking = message.thinking.value_or("") + block.text("thinking").value_or("");
    } else if (type == "redacted_thinking" && is_assistant) {
      continue;  // nobody here could read it
    } else if (type == "tool_use" && is_assistant) {
      message.tool_calls.push_back(parse_tool_use(block, block_path));
    } else if (type == "tool_result" && !is_assistant) {
      results.push_back(parse_tool_result(block, block_path));
    } else {
      not_supported(block_path + ".type", "\"" + type + "\" in a message of the " + message.role);
    }
  }
}

// Results of tools come before the text of the turn that brings them, wherever the blocks stood.
std::vector<templates::Message> parse_message(const Json& value, const std::string& path) {
  const Fields fields(value, path);
  templates::Message message;
  message.role = fields.required_text("role");
  if (message.role != "user" && message.role != "assistant") {
    throw ApiError(400,
                   "field \"" + path + ".role\": \"" + message.role +
                       "\", expected user or assistant; the system prompt is the field \"system\"",
                   path + ".role");
  }
  const Json* content = fields.any("content");
  if (!content) {
    throw ApiError(400, "field \"" + path + ".content\" is missing: expected a string or an array",
                   path + ".content");
  }
  std::vector<templates::Message> messages;
  parse_content(*content, path + ".content", message, messages);
  const bool only_results = !messages.empty() && message.content.empty();
  if (!only_results) messages.push_back(std::move(message));
  return messages;
}

// Turns of one role in a row are one turn, as Anthropic has it; templates want them to alternate.
void append(std::vector<templates::Message>& messages, templates::Message message) {
  if (messages.empty() || messages.back().role != message.role || message.role == "tool") {
    messages.push_back(std::move(message));
    return;
  }
  templates::Message& last = messages.back();
  if (!last.content.empty() && !message.content.empty()) last.content += "\n\n";
  last.content += message.content;
  if (message.thinking) last.thinking = last.thinking.value_or("") + *message.thinking;
  last.tool_calls.insert(last.tool_calls.end(), message.tool_calls.begin(),
                         message.tool_calls.end());
}

void check_results(const std::vector<templates::Message>& messages) {
  std::set<std::string> calls;
  for (const templates::Message& message : messages) {
    for (const templates::ToolCall& call : message.tool_calls)
      calls.insert(call.id);
    if (message.role == "tool" && calls.count(message.tool_call_id) == 0) {
      throw ApiError(400,
                     "field \"messages\": a tool_result is for the tool_use_id \"" +
                         message.tool_call_id + "\", which no tool_use before it has",
                     "messages");
    }
  }
}

void parse_messages(const Fields& fields, GenerationRequest& request) {
  if (const Json* system = fields.any("system")) {
    templates::Message message;
    message.role = "system";
    message.content = parse_text(*system, "system");
    if (!message.content.empty()) request.messages.push_back(std::move(message));
  }
  const Json* messages = fields.array("messages");
  if (!messages || messages->empty()) {
    throw ApiError(400, "field \"messages\" is missing: expected an array of messages", "messages");
  }
  if (messages->size() > kMaxMessages) {
    throw ApiError(400, "field \"messages\": more than " + std::to_string(kMaxMessages),
                   "messages");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    for (templates::Message& message : parse_message((*messages)[i], element("messages", i)))
      append(request.messages, std::move(message));
  }
  check_results(request.messages);
  link_tool_results(request.messages);
}

// A last turn of the assistant is the beginning of the answer.
void take_answer_prefix(GenerationRequest& request) {
  if (request.messages.back().role != "assistant") return;
  if (!request.messages.back().tool_calls.empty()) {
    throw ApiError(400,
                   "field \"messages\": the last message calls tools: expected one of the user "
                   "with their tool_result",
                   "messages");
  }
  request.answer_prefix = std::move(request.messages.back().content);
  request.messages.pop_back();
  if (request.messages.empty() ||
      (request.messages.back().role != "user" && request.messages.back().role != "tool")) {
    throw ApiError(400, "field \"messages\": expected a message of the user before the assistant's",
                   "messages");
  }
  const std::string& prefix = request.answer_prefix;
  if (!prefix.empty() &&
      std::string_view(" \t\r\n").find(prefix.back()) != std::string_view::npos) {
    throw ApiError(
        400, "field \"messages\": final assistant content cannot end with trailing whitespace",
        "messages");
  }
  if (request.think.value_or(true)) {
    throw ApiError(
        400,
        "field \"messages\": the last message can't be the assistant's when \"thinking\" "
        "is enabled",
        "messages");
  }
}

// The budget is checked but has no effect: a model thinks as long as it does. A model that can't
// think is asked all the same, as clients ask every model.
void parse_thinking(const Fields& fields, GenerationRequest& request) {
  request.think = false;
  const Json* object = fields.object("thinking");
  if (!object) return;
  const Fields thinking(*object, "thinking");
  const std::string type = thinking.required_text("type");
  if (type == "disabled") return;
  if (type != "enabled" && type != "adaptive") {
    throw ApiError(
        400, "field \"thinking.type\": \"" + type + "\", expected enabled, adaptive or disabled",
        "thinking.type");
  }
  request.think.reset();
  const auto budget = thinking.integer("budget_tokens", kMinBudgetTokens, kMaxInt);
  if (type == "enabled" && !budget) {
    throw ApiError(400, "field \"thinking.budget_tokens\" is missing: expected a whole number",
                   "thinking.budget_tokens");
  }
  const auto max_tokens = fields.integer("max_tokens", 1, kMaxInt);
  if (budget && max_tokens && *budget >= *max_tokens) {
    throw ApiError(400, "field \"thinking.budget_tokens\": expected less than \"max_tokens\"",
                   "thinking.budget_tokens");
  }
}

void parse_output_format(const Json& value, const std::string& path, GenerationRequest& request) {
  const Fields format(value, path);
  const std::string type = format.required_text("type");
  if (type != "json_schema") {
    throw ApiError(400, "field \"" + path + ".type\": \"" + type + "\", expected json_schema",
                   path + ".type");
  }
  const Json* schema = format.object("schema");
  if (!schema) {
    throw ApiError(400, "field \"" + path + ".schema\" is missing: expected an object",
                   path + ".schema");
  }
  engine::GrammarSpec grammar;
  grammar.kind = engine::GrammarSpec::Kind::kJsonSchema;
  grammar.source = dump(*schema);
  request.grammar = std::move(grammar);
}

void parse_output(const Fields& fields, GenerationRequest& request) {
  if (const Json* format = fields.object("output_format")) {
    parse_output_format(*format, "output_format", request);
  }
  const Json* object = fields.object("output_config");
  if (!object) return;
  const Fields output(*object, "output_config");
  if (const Json* format = output.object("format")) {
    parse_output_format(*format, "output_config.format", request);
  }
  const auto effort = output.text("effort");
  if (!effort) return;
  if (*effort != "low" && *effort != "medium" && *effort != "high" && *effort != "xhigh" &&
      *effort != "max") {
    throw ApiError(400,
                   "field \"output_config.effort\": \"" + *effort +
                       "\", expected low, medium, high, xhigh or max",
                   "output_config.effort");
  }
  request.think_level = *effort == "xhigh" ? "max" : *effort;
}

void parse_stop_sequences(const Fields& fields, AnthropicMessages& parsed) {
  const Json* stop = fields.array("stop_sequences");
  if (!stop) return;
  if (stop->size() > kMaxStopStrings) {
    throw ApiError(400, "field \"stop_sequences\": more than " + std::to_string(kMaxStopStrings),
                   "stop_sequences");
  }
  for (const Json& item : *stop) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty()) {
      fields.fail("stop_sequences", "an array of strings, none empty", item);
    }
    parsed.stop_sequences.push_back(item.get<std::string>());
  }
  if (parsed.stop_sequences.empty()) return;
  try {
    parsed.request.options["stop"] = check_option("stop", parsed.stop_sequences);
  } catch (const Error& error) {
    throw ApiError(400, std::string("field \"stop_sequences\": ") + error.what(), "stop_sequences");
  }
}

void parse_sampling(const Fields& fields, GenerationRequest& request) {
  request.defaults.temperature = 1.0f;
  request.defaults.top_p = 1.0f;
  request.defaults.top_k = 0;
  request.defaults.penalize_prompt = false;
  if (const auto value = fields.number("temperature", 0.0, 2.0)) {
    request.options["temperature"] = *value;
  }
  if (const auto value = fields.number("top_p", 0.0, 1.0)) request.options["top_p"] = *value;
  if (const auto value = fields.integer("top_k", 0, kMaxInt)) request.options["top_k"] = *value;
}

// Anthropic's form of a tool as OpenAI's, which templates know.
Json parse_tool(const Json& value, const std::string& path) {
  const Fields tool(value, path);
  const std::string type = tool.text("type").value_or("custom");
  if (type != "custom") not_supported(path + ".type", "the server's tool \"" + type + "\"");
  Json function = {{"name", tool.required_text("name")}};
  if (const auto description = tool.text("description")) function["description"] = *description;
  const Json* schema = tool.object("input_schema");
  if (!schema) {
    throw ApiError(400, "field \"" + path + ".input_schema\" is missing: expected an object",
                   path + ".input_schema");
  }
  function["parameters"] = *schema;
  if (const auto strict = tool.flag("strict")) function["strict"] = *strict;
  return {{"type", "function"}, {"function", std::move(function)}};
}

// Anthropic's choice as OpenAI's.
Json parse_choice(const Fields& choice, Json& openai) {
  const std::string type = choice.required_text("type");
  if (choice.flag("disable_parallel_tool_use").value_or(false)) {
    openai["parallel_tool_calls"] = false;
  }
  if (type == "auto" || type == "none") return type;
  if (type == "any") return "required";
  if (type == "tool") {
    return {{"type", "function"}, {"function", {{"name", choice.required_text("name")}}}};
  }
  throw ApiError(400,
                 "field \"tool_choice.type\": \"" + type + "\", expected auto, any, tool or none",
                 "tool_choice.type");
}

void parse_tools(const Fields& fields, GenerationRequest& request) {
  Json openai = Json::object();
  if (const Json* tools = fields.array("tools")) {
    openai["tools"] = Json::array();
    for (size_t i = 0; i < tools->size(); ++i)
      openai["tools"].push_back(parse_tool((*tools)[i], element("tools", i)));
  }
  if (const Json* choice = fields.object("tool_choice")) {
    openai["tool_choice"] = parse_choice(Fields(*choice, "tool_choice"), openai);
  }
  parse_tool_fields(Fields(openai), request);
}

}  // namespace

AnthropicMessages parse_anthropic_messages(std::string_view body, AnthropicCall call) {
  const Json json = parse_body(body);
  const Fields fields(json);
  AnthropicMessages parsed;
  GenerationRequest& request = parsed.request;
  request.model = fields.required_text("model");
  request.overlong = Overlong::kRefuse;
  const auto max_tokens = fields.integer("max_tokens", 1, kMaxInt);
  if (call == AnthropicCall::kMessages) {
    if (!max_tokens) {
      throw ApiError(400, "field \"max_tokens\" is missing: expected a whole number", "max_tokens");
    }
    parsed.max_tokens = *max_tokens;
    request.options["num_predict"] = *max_tokens;
    parsed.stream = fields.flag("stream").value_or(false);
  }
  fields.refuse({"mcp_servers", "container"});
  parse_sampling(fields, request);
  parse_stop_sequences(fields, parsed);
  parse_thinking(fields, request);
  parse_output(fields, request);
  parse_tools(fields, request);
  parse_messages(fields, request);
  take_answer_prefix(request);
  return parsed;
}

}  // namespace dsctl::commands::serve
