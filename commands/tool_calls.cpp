#include "commands/tool_calls.h"

#include <string>
#include <utility>

namespace dsctl::commands {
namespace {

using templates::Json;
using templates::ToolFormat;
using Kind = ToolChoice::Kind;

constexpr int kMaxCalls = 128;       // of one answer; what follows is dropped
constexpr int kMaxForcedCalls = 16;  // a small model may not find an end by itself

std::string name_of(const Json& tool) {
  return tool.at("function").value("name", std::string());
}

bool is_strict(const Json& tool) {
  return tool.at("function").value("strict", false);
}

bool is_single(const GenerationRequest& request) {
  return !request.parallel_tool_calls || request.tool_choice.kind == Kind::kNamed;
}

/// A call of `tool`; its arguments may be any object unless they have to follow the schema.
Json call_item(const Json& tool, const ToolFormat& format, bool follow_schema) {
  const Json& function = tool.at("function");
  Json schema = {{"type", "object"}};
  if (follow_schema) {
    schema = function.contains("parameters")
                 ? function["parameters"]
                 : Json({{"type", "object"}, {"properties", Json::object()}});
  }
  return {{"begin", format.before_name + name_of(tool) + format.before_arguments},
          {"schema", std::move(schema)},
          {"end", format.after_arguments}};
}

}  // namespace

ToolCallReading read_tool_calls(const GenerationRequest& request, const ToolFormat& format) {
  ToolCallReading reading{
      .format = format, .names = {}, .max_calls = is_single(request) ? 1 : kMaxCalls};
  for (const Json& tool : request.tools)
    reading.names.push_back(name_of(tool));
  return reading;
}

std::optional<engine::GrammarSpec> tool_grammar(const GenerationRequest& request,
                                                const ToolFormat& format) {
  const Kind kind = request.tool_choice.kind;
  const bool is_forced = kind == Kind::kRequired || kind == Kind::kNamed;
  bool any_strict = false;
  Json items = Json::array();
  for (const Json& tool : request.tools) {
    if (kind == Kind::kNamed && name_of(tool) != request.tool_choice.name) continue;
    any_strict = any_strict || is_strict(tool);
    items.push_back(call_item(tool, format, is_forced || is_strict(tool)));
  }
  if (kind == Kind::kNone || items.empty()) return std::nullopt;
  if (!is_forced && (!any_strict || format.trigger.empty())) return std::nullopt;
  const bool is_one = is_single(request) || !format.is_parallel;
  const Json tagged = {{"open", format.open},
                       {"items", std::move(items)},
                       {"separator", format.separator},
                       {"close", format.close},
                       {"max_items", is_one ? 1 : kMaxForcedCalls}};
  engine::GrammarSpec spec;
  spec.kind = engine::GrammarSpec::Kind::kTagged;
  spec.source = tagged.dump();
  spec.control_tokens = format.markers();
  if (!is_forced) spec.triggers = {format.trigger};
  return spec;
}

}  // namespace dsctl::commands
