#include "commands/serve/tool_fields.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <set>
#include <utility>

namespace dsctl::commands::serve {
namespace {

using templates::Message;
using templates::ToolCall;

constexpr size_t kMaxTools = 512;
constexpr size_t kMaxCalls = 1024;
constexpr size_t kMaxNameBytes = 128;

std::string element(const std::string& list, size_t index) {
  return list + "[" + std::to_string(index) + "]";
}

// Names stand inside JSON texts and markers: nothing in them may end those.
void check_name(const std::string& name, const std::string& path) {
  const bool is_plain = std::all_of(name.begin(), name.end(), [](char c) {
    return static_cast<unsigned char>(c) > 0x20 && c != '"' && c != '\\' && c != '<' && c != '>' &&
           c != 0x7f;
  });
  if (is_plain && name.size() <= kMaxNameBytes) return;
  throw ApiError(400,
                 "field \"" + path + "\": expected a name of at most " +
                     std::to_string(kMaxNameBytes) + " characters without spaces and quotes",
                 path);
}

Json parse_tool(const Json& value, const std::string& path) {
  const Fields tool(value, path);
  const std::string type = tool.text("type").value_or("function");
  if (type != "function") {
    throw ApiError(400, "field \"" + path + ".type\": \"" + type + "\", expected \"function\"",
                   path + ".type");
  }
  const Json* inner = tool.object("function");
  if (!inner) throw ApiError(400, "field \"" + path + ".function\" is missing", path + ".function");
  const Fields function(*inner, path + ".function");
  check_name(function.required_text("name"), path + ".function.name");
  function.text("description");
  function.flag("strict");
  if (const Json* parameters = function.object("parameters")) {
    const Json* kind = Fields(*parameters, path + ".function.parameters").any("type");
    if (kind && *kind != "object") {
      const std::string where = path + ".function.parameters.type";
      throw ApiError(400, "field \"" + where + "\": expected \"object\"", where);
    }
  }
  Json result = value;
  // Absent and null are one here, but not to a template.
  for (const char* name : {"description", "strict", "parameters"}) {
    if (result["function"].contains(name) && result["function"][name].is_null()) {
      result["function"].erase(name);
    }
  }
  if (!result.contains("type")) {
    Json typed = {{"type", "function"}};
    typed.update(result);
    result = std::move(typed);
  }
  if (!result["function"].contains("parameters")) {
    result["function"]["parameters"] = {{"type", "object"}, {"properties", Json::object()}};
  }
  return result;
}

Json parse_tools(const Fields& fields, std::set<std::string>& names) {
  const Json* list = fields.array("tools");
  if (!list || list->empty()) return nullptr;
  if (list->size() > kMaxTools) {
    throw ApiError(400, "field \"tools\": more than " + std::to_string(kMaxTools), "tools");
  }
  Json tools = Json::array();
  for (size_t i = 0; i < list->size(); ++i) {
    const std::string path = element("tools", i);
    tools.push_back(parse_tool((*list)[i], path));
    const auto name = tools.back()["function"]["name"].get<std::string>();
    if (!names.insert(name).second) {
      throw ApiError(400, "field \"" + path + ".function.name\": a second tool \"" + name + "\"",
                     path + ".function.name");
    }
  }
  return tools;
}

ToolChoice parse_tool_choice(const Fields& fields, const std::set<std::string>& names) {
  using Kind = ToolChoice::Kind;
  ToolChoice choice;
  const Json* value = fields.any("tool_choice");
  if (!value) return choice;
  if (value->is_string()) {
    const auto text = value->get<std::string>();
    if (text == "none") {
      choice.kind = Kind::kNone;
    } else if (text == "required") {
      choice.kind = Kind::kRequired;
    } else if (text != "auto") {
      throw ApiError(400,
                     "field \"tool_choice\": \"" + text +
                         "\", expected \"none\", \"auto\", \"required\" or a function",
                     "tool_choice");
    }
  } else if (value->is_object()) {
    const Fields object(*value, "tool_choice");
    if (object.required_text("type") != "function") {
      object.fail("type", "\"function\"", (*value)["type"]);
    }
    const Json* function = object.object("function");
    if (!function) {
      throw ApiError(400, "field \"tool_choice.function\" is missing", "tool_choice.function");
    }
    choice.kind = Kind::kNamed;
    choice.name = Fields(*function, "tool_choice.function").required_text("name");
  } else {
    fields.fail("tool_choice", "a string or an object", *value);
  }
  if (choice.kind != Kind::kNone && choice.kind != Kind::kAuto && names.empty()) {
    throw ApiError(400, "field \"tool_choice\": there are no \"tools\" to choose from",
                   "tool_choice");
  }
  if (choice.kind == Kind::kNamed && names.count(choice.name) == 0) {
    throw ApiError(400, "field \"tool_choice\": \"" + choice.name + "\" is not among the \"tools\"",
                   "tool_choice");
  }
  return choice;
}

ToolCall parse_call(const Json& value, const std::string& path) {
  const Fields fields(value, path);
  const Json* inner = fields.object("function");
  if (!inner) throw ApiError(400, "field \"" + path + ".function\" is missing", path + ".function");
  const Fields function(*inner, path + ".function");
  ToolCall call;
  call.id = fields.text("id").value_or("");
  call.name = function.required_text("name");
  const Json* arguments = function.any("arguments");
  if (!arguments) return call;
  if (arguments->is_object()) {
    call.arguments = *arguments;
    return call;
  }
  if (!arguments->is_string()) {
    function.fail("arguments", "an object or its JSON text", *arguments);
  }
  const auto& text = arguments->get_ref<const std::string&>();
  if (text.empty()) return call;
  Json parsed = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  // What a model once wrote stays as it is, even when it is no object.
  call.arguments = parsed.is_object() ? std::move(parsed) : *arguments;
  return call;
}

}  // namespace

void parse_tool_fields(const Fields& fields, GenerationRequest& request) {
  std::set<std::string> names;
  request.tools = parse_tools(fields, names);
  request.tool_choice = parse_tool_choice(fields, names);
  request.parallel_tool_calls = fields.flag("parallel_tool_calls").value_or(true);
  const bool must_call = request.tool_choice.kind == ToolChoice::Kind::kRequired ||
                         request.tool_choice.kind == ToolChoice::Kind::kNamed;
  if (must_call && request.grammar) {
    throw ApiError(400,
                   "field \"tool_choice\": the answer can't be a tool call and what \"format\" or "
                   "\"response_format\" asks for; give one of them",
                   "tool_choice");
  }
}

std::vector<ToolCall> parse_tool_calls(const Fields& message) {
  std::vector<ToolCall> calls;
  const Json* list = message.array("tool_calls");
  if (!list) return calls;
  const std::string path = message.path_of("tool_calls");
  if (list->size() > kMaxCalls) {
    throw ApiError(400, "field \"" + path + "\": more than " + std::to_string(kMaxCalls), path);
  }
  for (size_t i = 0; i < list->size(); ++i)
    calls.push_back(parse_call((*list)[i], element(path, i)));
  return calls;
}

void link_tool_results(std::vector<Message>& messages) {
  struct Open {
    std::string id;
    std::string name;
  };
  std::vector<Open> open;  // calls without a result, oldest first
  size_t n_calls = 0;
  for (Message& message : messages) {
    if (message.role == "assistant") open.clear();
    for (ToolCall& call : message.tool_calls) {
      // Nine letters and digits: what Mistral's templates accept.
      char id[16];
      std::snprintf(id, sizeof(id), "call%05u", static_cast<unsigned>(n_calls++ % 100'000));
      if (call.id.empty()) call.id = id;
      open.push_back({call.id, call.name});
    }
    if (message.role != "tool") continue;
    const auto found = std::find_if(open.begin(), open.end(), [&](const Open& call) {
      if (!message.tool_call_id.empty()) return call.id == message.tool_call_id;
      return message.tool_name.empty() || call.name == message.tool_name;
    });
    if (found == open.end()) continue;
    if (message.tool_call_id.empty()) message.tool_call_id = found->id;
    if (message.tool_name.empty()) message.tool_name = found->name;
    open.erase(found);
  }
}

std::string new_tool_call_id() {
  constexpr std::string_view kLetters = "0123456789abcdefghijklmnopqrstuvwxyz";
  std::random_device random;
  std::string id = "call_";
  for (int i = 0; i < 16; ++i)
    id += kLetters[random() % kLetters.size()];
  return id;
}

}  // namespace dsctl::commands::serve
