// POST /v1/chat/completions: its fields.
#include <algorithm>
#include <array>
#include <utility>

#include "commands/serve/openai_fields.h"
#include "commands/serve/tool_fields.h"

namespace dsctl::commands::serve {
namespace {

constexpr size_t kMaxMessages = 100'000;

/// Variables of a template that no client sets by name.
bool is_reserved_variable(std::string_view name) {
  constexpr std::array<std::string_view, 6> kReserved = {
      "messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"};
  return std::find(kReserved.begin(), kReserved.end(), name) != kReserved.end();
}

void refuse_old_functions(const Fields& fields) {
  for (const auto& [old, instead] :
       {std::pair{"functions", "tools"}, std::pair{"function_call", "tool_choice"}}) {
    if (!fields.any(old)) continue;
    throw ApiError(400,
                   "field \"" + std::string(old) + "\" is the old form of \"" + instead +
                       "\"; send that instead",
                   old, "unsupported_parameter");
  }
}

std::string parse_content(const Fields& fields, const std::string& path) {
  const Json* content = fields.any("content");
  if (!content) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) fields.fail("content", "a string or an array of parts", *content);
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string part_path = path + ".content[" + std::to_string(i) + "]";
    const Fields part((*content)[i], part_path);
    const std::string type = part.required_text("type");
    if (type != "text") openai_not_supported(part_path + ".type", "\"" + type + "\"");
    text += part.text("text").value_or("");
  }
  return text;
}

templates::Message parse_message(const Json& value, const std::string& path) {
  const Fields fields(value, path);
  templates::Message message;
  message.role = fields.required_text("role");
  if (message.role == "developer") message.role = "system";
  if (message.role != "system" && message.role != "user" && message.role != "assistant" &&
      message.role != "tool") {
    throw ApiError(400,
                   "field \"" + path + ".role\": \"" + message.role +
                       "\", expected system, developer, user, assistant or tool",
                   path + ".role");
  }
  fields.refuse({"function_call", "audio"});
  if (message.role == "assistant") {
    message.tool_calls = parse_tool_calls(fields);
  } else {
    fields.refuse({"tool_calls"});
  }
  message.content = parse_content(fields, path);
  message.thinking = fields.text("reasoning_content");
  if (!message.thinking) message.thinking = fields.text("reasoning");
  message.tool_call_id = fields.text("tool_call_id").value_or("");
  if (message.role == "tool") message.tool_name = fields.text("name").value_or("");
  return message;
}

void parse_effort(const Fields& fields, GenerationRequest& request) {
  auto effort = fields.text("reasoning_effort");
  if (const Json* reasoning = fields.object("reasoning"); reasoning && !effort) {
    effort = Fields(*reasoning, "reasoning").text("effort");
  }
  if (effort) {
    request.think = *effort != "none";
    if (*effort == "minimal") {
      request.think_level = "low";
    } else if (*effort == "xhigh" || *effort == "ultra") {
      request.think_level = "max";
    } else if (*effort == "low" || *effort == "medium" || *effort == "high" || *effort == "max") {
      request.think_level = *effort;
    } else if (*effort != "none") {
      throw ApiError(400,
                     "field \"reasoning_effort\": \"" + *effort +
                         "\", expected none, minimal, low, medium, high or max",
                     "reasoning_effort");
    }
  }
  if (const Json* more = fields.object("chat_template_kwargs")) {
    const Fields kwargs(*more, "chat_template_kwargs");
    for (const char* name : {"enable_thinking", "thinking"}) {
      if (const auto think = kwargs.flag(name)) request.think = *think;
    }
    for (const auto& [name, value] : more->items()) {
      if (is_reserved_variable(name)) {
        throw ApiError(400,
                       "field \"chat_template_kwargs." + name + "\": the request itself sets it",
                       "chat_template_kwargs." + name);
      }
      request.template_variables[name] = value;
    }
  }
}

}  // namespace

OpenAiGenerate parse_openai_chat(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  OpenAiGenerate parsed;
  parse_openai_common(fields, parsed);
  GenerationRequest& request = parsed.request;
  fields.refuse({"audio", "prediction", "web_search_options"});
  refuse_old_functions(fields);
  parse_tool_fields(fields, request);
  parsed.include_reasoning = fields.flag("include_reasoning").value_or(true);
  if (const Json* modalities = fields.array("modalities")) {
    for (const Json& modality : *modalities) {
      if (modality != "text") openai_not_supported("modalities", modality.dump());
    }
  }
  set_openai_integer(fields, "max_tokens", 1, kMaxOpenAiInt, request, "num_predict");
  set_openai_integer(fields, "max_completion_tokens", 1, kMaxOpenAiInt, request, "num_predict");
  parse_effort(fields, request);
  const bool logprobs = fields.flag("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMaxOpenAiTopLogprobs);
  if (top.value_or(0) > 0 && !logprobs) {
    throw ApiError(400, "field \"top_logprobs\": only allowed when \"logprobs\" is true",
                   "top_logprobs");
  }
  if (logprobs) request.n_logprobs = static_cast<int>(top.value_or(0));
  const Json* messages = fields.array("messages");
  if (!messages || messages->empty()) {
    throw ApiError(400, "field \"messages\" is missing: expected an array of messages", "messages");
  }
  if (messages->size() > kMaxMessages) {
    throw ApiError(400, "field \"messages\": more than " + std::to_string(kMaxMessages),
                   "messages");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    request.messages.push_back(
        parse_message((*messages)[i], "messages[" + std::to_string(i) + "]"));
  }
  link_tool_results(request.messages);
  return parsed;
}

}  // namespace dsctl::commands::serve
