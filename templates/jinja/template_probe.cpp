#include "templates/jinja/template_probe.h"

#include <optional>
#include <string_view>

namespace dsctl::templates::jinja {
namespace {

constexpr std::string_view kTextMark = "<<text mark>>";
constexpr std::string_view kSystemMark = "<<system mark>>";
constexpr std::string_view kToolMark = "tool_mark";
constexpr std::string_view kArgumentMark = "argument_mark";

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

/// The text, or nothing when the template fails.
std::optional<std::string> try_render(const Template& parsed, const RenderInput& input,
                                      const MessageShape& shape) {
  RenderOptions options;
  // A real template needs thousands of steps for these few messages.
  options.limits.max_steps = 500'000;
  options.limits.max_created_bytes = 16u << 20;
  try {
    return parsed.render(conversation_variables(input, shape), options);
  } catch (const Error&) {
    return std::nullopt;
  }
}

bool shows(const std::optional<std::string>& text, std::string_view mark) {
  return text && contains(*text, mark);
}

RenderInput base_input() {
  RenderInput input;
  // Marked tokens, so that a template that writes them can't be mistaken for one that writes text.
  input.bos_token = "<bos>";
  input.eos_token = "<eos>";
  return input;
}

Message message(std::string_view role, std::string_view content) {
  Message result;
  result.role = role;
  result.content = content;
  return result;
}

RenderInput user_input() {
  RenderInput input = base_input();
  input.messages.push_back(message("user", kTextMark));
  return input;
}

Json tool_json() {
  return Json::array(
      {{{"type", "function"},
        {"function",
         {{"name", kToolMark},
          {"description", "A tool"},
          {"parameters",
           {{"type", "object"},
            {"properties", {{kArgumentMark, {{"type", "string"}, {"description", "An argument"}}}}},
            {"required", Json::array({kArgumentMark})}}}}}}});
}

RenderInput tool_call_input() {
  RenderInput input = user_input();
  Message call = message("assistant", "");
  Json arguments = Json::object();
  arguments[std::string(kArgumentMark)] = "value";
  call.tool_calls.push_back({"call12345", std::string(kToolMark), arguments});
  // The tools themselves are left out: the mark must come from the call.
  input.messages.push_back(call);
  return input;
}

/// Some templates loop over the tools without asking whether there are any.
bool wants_undefined_tools(const Template& parsed) {
  const RenderInput input = user_input();
  MessageShape undefined;
  undefined.undefined_tools = true;
  return !try_render(parsed, input, {}) && try_render(parsed, input, undefined);
}

bool wants_typed_content(const Template& parsed, const MessageShape& shape) {
  const RenderInput input = user_input();
  if (shows(try_render(parsed, input, shape), kTextMark)) return false;
  MessageShape typed = shape;
  typed.typed_content = true;
  return shows(try_render(parsed, input, typed), kTextMark);
}

bool wants_merged_system(const Template& parsed, const MessageShape& shape) {
  RenderInput input = user_input();
  if (!shows(try_render(parsed, input, shape), kTextMark)) return false;
  input.messages.insert(input.messages.begin(), message("system", kSystemMark));
  if (shows(try_render(parsed, input, shape), kSystemMark)) return false;
  MessageShape merged = shape;
  merged.merge_system = true;
  return shows(try_render(parsed, input, merged), kSystemMark);
}

/// Does the call appear, with its arguments as JSON rather than as a Python dict?
bool shows_call(const std::optional<std::string>& text) {
  if (!shows(text, kToolMark) || !shows(text, kArgumentMark)) return false;
  return !contains(*text, "'" + std::string(kArgumentMark) + "'");
}

/// The first form of a tool call that the template writes well; the usual one when none is.
MessageShape with_call_shape(const Template& parsed, const MessageShape& shape) {
  const RenderInput input = tool_call_input();
  for (const bool null_content : {false, true}) {
    for (const bool as_text : {false, true}) {
      MessageShape trial = shape;
      trial.null_content = null_content;
      trial.arguments_as_text = as_text;
      if (shows_call(try_render(parsed, input, trial))) return trial;
    }
  }
  return shape;
}

struct Tags {
  std::string_view open;
  std::string_view close;
};

constexpr Tags kThinkTags[] = {
    {"<think>", "</think>"},           {"[THINK]", "[/THINK]"},
    {"<seed:think>", "</seed:think>"}, {"<|START_THINKING|>", "<|END_THINKING|>"},
    {"<thought>", "</thought>"},       {"<|channel>thought", "<channel|>"},
};

void find_thinking(const TemplateTree& tree, TemplateCapabilities& capabilities) {
  for (const Tags& tags : kThinkTags) {
    for (const std::string& literal : tree.literals) {
      if (!contains(literal, tags.open) && !contains(literal, tags.close)) continue;
      capabilities.thinking = true;
      capabilities.think_open = tags.open;
      capabilities.think_close = tags.close;
      return;
    }
  }
}

/// Firefunction's template reads the tools as a text, and today's date, from variables of its own.
bool wants_functions_text(const Template& parsed) {
  const RenderInput input = user_input();
  MessageShape with_text;
  with_text.functions_text = true;
  return !try_render(parsed, input, {}) && try_render(parsed, input, with_text);
}

bool prints_tools(const Template& parsed, const MessageShape& shape) {
  RenderInput input = user_input();
  input.tools = tool_json();
  return shows(try_render(parsed, input, shape), kToolMark);
}

}  // namespace

TemplateTraits probe_template(const Template& parsed) {
  TemplateTraits traits;
  traits.shape.undefined_tools = wants_undefined_tools(parsed);
  traits.shape.functions_text = wants_functions_text(parsed);
  traits.shape.typed_content = wants_typed_content(parsed, traits.shape);
  traits.shape.merge_system = wants_merged_system(parsed, traits.shape);
  traits.shape = with_call_shape(parsed, traits.shape);
  traits.capabilities.tools = prints_tools(parsed, traits.shape);
  std::string text;
  for (const std::string& literal : parsed.tree().literals)
    text += literal + '\n';
  traits.capabilities.tool_format = find_tool_format(text);
  if (!traits.capabilities.tools && traits.capabilities.tool_format) {
    traits.describe_tools = shows_call(try_render(parsed, tool_call_input(), traits.shape));
    traits.capabilities.tools = traits.describe_tools;
  }
  if (!traits.capabilities.tools) {
    traits.capabilities.tool_format.reset();
  } else if (!traits.capabilities.tool_format) {
    traits.capabilities.tool_format = generic_tool_format("");
  }
  find_thinking(parsed.tree(), traits.capabilities);
  return traits;
}

}  // namespace dsctl::templates::jinja
