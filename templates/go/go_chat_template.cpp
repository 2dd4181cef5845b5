#include "templates/go/go_chat_template.h"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <set>
#include <utility>

#include "templates/error.h"
#include "templates/go/conversation.h"
#include "templates/go/executor.h"
#include "templates/go/parser.h"

namespace dsctl::templates::go {
namespace {

int64_t local_today() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return (static_cast<int64_t>(now) + local.tm_gmtoff) / 86'400;
}

std::string date_text(int64_t days) {
  const std::time_t seconds = static_cast<std::time_t>(days * 86'400);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  char buffer[32];
  std::strftime(buffer, sizeof(buffer), "%Y-%m-%d", &utc);
  return buffer;
}

std::string typescript_type(const std::string& schema_type) {
  if (schema_type == "string") return "string";
  if (schema_type == "number" || schema_type == "integer") return "number";
  if (schema_type == "boolean") return "boolean";
  if (schema_type == "array") return "any[]";
  if (schema_type == "object") return "Record<string, any>";
  if (schema_type == "null") return "null";
  return "any";
}

/// toTypeScriptType of a tool's property: its types, or those of its anyOf, joined by " | ".
std::string typescript_property(const Value& property) {
  const Struct* record = property.as_struct();
  if (!record) return "any";
  std::string out;
  const auto add = [&](const std::string& type) { out += (out.empty() ? "" : " | ") + type; };
  const Value* any_of = record->find("AnyOf");
  if (any_of && any_of->as_list() && !any_of->as_list()->items.empty()) {
    for (const Value& item : any_of->as_list()->items)
      add(typescript_property(item));
    return out;
  }
  const Value* type = record->find("Type");
  if (type && type->as_list()) {
    for (const Value& item : type->as_list()->items)
      add(typescript_type(*item.as_string()));
  }
  return out.empty() ? "any" : out;
}

FunctionMap chat_functions(const Today& today) {
  FunctionMap functions = builtin_functions();
  functions["json"] = [](std::span<const Value> arguments) {
    if (arguments.size() != 1) throw Error("wrong number of args for json: want 1");
    return Value(to_json(arguments[0]));
  };
  functions["currentDate"] = [today](std::span<const Value>) { return Value(date_text(today())); };
  functions["yesterdayDate"] = [today](std::span<const Value>) {
    return Value(date_text(today() - 1));
  };
  functions["toTypeScriptType"] = [](std::span<const Value> arguments) {
    if (arguments.size() != 1) throw Error("wrong number of args for toTypeScriptType: want 1");
    return Value(typescript_property(arguments[0]));
  };
  return functions;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

/// Calls `visit` with every operand of the tree, in document order.
template <typename Visit>
void visit_operands(const Pipeline& pipe, const Visit& visit) {
  for (const Command& command : pipe.commands) {
    for (const Operand& operand : command.operands) {
      visit(operand);
      if (operand.pipeline) visit_operands(*operand.pipeline, visit);
    }
  }
}

template <typename Visit>
void visit_operands(const NodeList& nodes, const Visit& visit) {
  for (const Node& node : nodes) {
    if (node.pipeline) visit_operands(*node.pipeline, visit);
    visit_operands(node.body, visit);
    visit_operands(node.else_body, visit);
  }
}

/// Names of fields and variables anywhere in the template, in lower case.
std::set<std::string> identifiers(const Tree& tree) {
  std::set<std::string> names;
  for (const auto& [name, nodes] : tree.templates) {
    visit_operands(nodes, [&](const Operand& operand) {
      for (const std::string& field : operand.names)
        names.insert(lower(field));
      if (operand.kind == Operand::Kind::kVariable && operand.text.size() > 1) {
        names.insert(lower(operand.text.substr(1)));
      }
    });
  }
  return names;
}

void check_calls(const Tree& tree, const NodeList& nodes, std::set<std::string>& open) {
  for (const Node& node : nodes) {
    if (node.kind == Node::Kind::kTemplate) {
      const auto found = tree.templates.find(node.text);
      const std::string at = where(tree.source, node.position);
      if (found == tree.templates.end()) {
        throw Error(at + "undefined template \"" + node.text + "\"");
      }
      if (!open.insert(node.text).second) {
        throw Error(at + "template \"" + node.text + "\" calls itself");
      }
      check_calls(tree, found->second, open);
      open.erase(node.text);
    }
    check_calls(tree, node.body, open);
    check_calls(tree, node.else_body, open);
  }
}

bool mentions(const Pipeline& pipe, const std::string& name) {
  bool found = false;
  visit_operands(pipe, [&](const Operand& operand) {
    found =
        found || std::find(operand.names.begin(), operand.names.end(), name) != operand.names.end();
  });
  return found;
}

/// What is left of `nodes` when everything after the first action that mentions Response is taken
/// away: the form in which the last turn is rendered. `cut` says whether that action was met.
NodeList cut_after_response(const NodeList& nodes, bool& cut) {
  NodeList kept;
  for (const Node& node : nodes) {
    if (cut) break;
    Node copy = node;
    if (node.kind == Node::Kind::kAction) {
      cut = mentions(*node.pipeline, "Response");
    } else {
      copy.body = cut_after_response(node.body, cut);
      if (cut) {
        copy.else_body.clear();
      } else {
        copy.else_body = cut_after_response(node.else_body, cut);
      }
    }
    kept.push_back(std::move(copy));
  }
  return kept;
}

std::string trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n\v\f";
  const size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return "";
  return std::string(text.substr(begin, text.find_last_not_of(kSpace) - begin + 1));
}

/// Thinking tags: the texts at both ends of the innermost list around a .Thinking inside a range
/// over the messages. Ollama infers them the same way.
struct TagFinder {
  TemplateCapabilities& capabilities;

  void note(const Pipeline& pipe, const NodeList& around) const {
    visit_operands(pipe, [&](const Operand& operand) {
      if (operand.kind != Operand::Kind::kField || operand.names.front() != "Thinking") return;
      if (around.front().kind == Node::Kind::kText) {
        capabilities.think_open = trim(around.front().text);
      }
      if (around.back().kind == Node::Kind::kText) {
        capabilities.think_close = trim(around.back().text);
      }
    });
  }

  void walk(const NodeList& nodes, bool in_messages) const {
    for (const Node& node : nodes) {
      if (node.pipeline && in_messages) note(*node.pipeline, nodes);
      const bool inside =
          node.kind == Node::Kind::kRange ? mentions(*node.pipeline, "Messages") : in_messages;
      walk(node.body, inside);
      walk(node.else_body, inside);
    }
  }
};

/// The first text in `nodes` that is not blank, before any action; nothing when there is none.
std::optional<std::string> first_text(const NodeList& nodes) {
  for (const Node& node : nodes) {
    if (node.kind == Node::Kind::kAction) return std::nullopt;
    if (node.kind == Node::Kind::kText && !trim(node.text).empty()) return node.text;
    if (auto inner = first_text(node.body)) return inner;
  }
  return std::nullopt;
}

/// What the template puts before tool calls: the text that begins the first `if` that asks for
/// them, up to their JSON. Ollama infers it the same way.
std::string tool_tag(const NodeList& nodes) {
  for (const Node& node : nodes) {
    if (node.kind == Node::Kind::kIf && mentions(*node.pipeline, "ToolCalls")) {
      const std::string text = first_text(node.body).value_or("");
      return trim(text.substr(0, text.find('{')));
    }
    for (const NodeList* inner : {&node.body, &node.else_body}) {
      if (std::string tag = tool_tag(*inner); !tag.empty()) return tag;
    }
  }
  return "";
}

class GoChatTemplate final : public ChatTemplate {
 public:
  GoChatTemplate(std::string_view source, Today today)
      : source_(source), functions_(chat_functions(today ? std::move(today) : local_today)) {
    tree_ = go::parse(source, [this](std::string_view name) {
      return name == "and" || name == "or" || functions_.find(name) != functions_.end();
    });
    std::set<std::string> open;
    for (const auto& [name, nodes] : tree_.templates) {
      if (!name.empty()) open.insert(name);
      check_calls(tree_, nodes, open);
      open.clear();
    }
    names_ = identifiers(tree_);
    if (!names_.count("messages") && !names_.count("response")) append_response();
    bool cut = false;
    last_turn_ = cut_after_response(tree_.templates[""], cut);
    capabilities_.tools = names_.count("tools") > 0;
    capabilities_.insert = names_.count("suffix") > 0;
    if (capabilities_.tools) {
      capabilities_.tool_format = find_tool_format(source);
      if (!capabilities_.tool_format) {
        capabilities_.tool_format = generic_tool_format(tool_tag(tree_.templates[""]));
      }
    }
    TagFinder{capabilities_}.walk(tree_.templates[""], false);
    capabilities_.thinking =
        !capabilities_.think_open.empty() && !capabilities_.think_close.empty();
  }

  std::string render(const RenderInput& input) const override {
    std::string system;
    const std::vector<Message> messages = collate(input.messages, system);
    Map data;
    data.items["Response"] = Value(std::string());
    data.items["Think"] = Value(input.think.value_or(false));
    data.items["ThinkLevel"] = Value(input.think_level);
    data.items["IsThinkSet"] = Value(input.think.has_value());
    if (!input.suffix.empty() && !messages.empty() && !messages.back().content.empty()) {
      data.items["Prompt"] = Value(messages.back().content);
      data.items["Suffix"] = Value(input.suffix);
      return execute(tree_, functions_, Value(std::move(data)));
    }
    if (names_.count("messages")) {
      data.items["System"] = Value(system);
      data.items["Messages"] = messages_value(messages);
      data.items["Tools"] = tools_value(input.tools);
      return execute(tree_, functions_, Value(std::move(data)));
    }
    return render_by_turns(messages, std::move(data));
  }

  TemplateLanguage language() const override { return TemplateLanguage::kGo; }
  const std::string& source() const override { return source_; }
  const TemplateCapabilities& capabilities() const override { return capabilities_; }

 private:
  /// Joins the system messages into `system` and merges neighbours of one role (tool results stay
  /// apart). Merged text is set apart by a blank line.
  static std::vector<Message> collate(const std::vector<Message>& messages, std::string& system) {
    std::vector<Message> merged;
    for (const Message& message : messages) {
      if (message.role == "system") {
        system += (system.empty() ? "" : "\n\n") + message.content;
      }
      if (!merged.empty() && merged.back().role == message.role && message.role != "tool") {
        merged.back().content += "\n\n" + message.content;
      } else {
        merged.push_back(message);
      }
    }
    return merged;
  }

  void append_response() {
    Operand response;
    response.kind = Operand::Kind::kField;
    response.position = source_.size();
    response.names = {"Response"};
    Pipeline pipe;
    pipe.position = source_.size();
    pipe.commands.push_back({pipe.position, {response}});
    Node node;
    node.kind = Node::Kind::kAction;
    node.position = pipe.position;
    node.pipeline = std::make_shared<const Pipeline>(std::move(pipe));
    tree_.templates[""].push_back(std::move(node));
    names_.insert("response");
  }

  /// A template without Messages is executed once a turn; the last turn ends before what follows
  /// the response.
  std::string render_by_turns(const std::vector<Message>& messages, Map data) const {
    std::string out;
    std::string system;
    std::string prompt;
    std::string response;
    const auto turn = [&](const NodeList& root) {
      data.items["System"] = Value(std::exchange(system, ""));
      data.items["Prompt"] = Value(std::exchange(prompt, ""));
      data.items["Response"] = Value(std::exchange(response, ""));
      out += execute(tree_, root, functions_, Value(data));
    };
    const NodeList& whole = tree_.templates.at("");
    for (const Message& message : messages) {
      if (message.role == "system") {
        if (!prompt.empty() || !response.empty()) turn(whole);
        system = message.content;
      } else if (message.role == "user") {
        if (!response.empty()) turn(whole);
        prompt = message.content;
      } else if (message.role == "assistant") {
        response = message.content;
      }
    }
    turn(last_turn_);
    return out;
  }

  std::string source_;
  FunctionMap functions_;
  Tree tree_;
  NodeList last_turn_;
  std::set<std::string> names_;
  TemplateCapabilities capabilities_;
};

}  // namespace

std::unique_ptr<ChatTemplate> parse_chat_template(std::string_view source, Today today) {
  // A template is text that people write; a megabyte is no longer that.
  constexpr size_t kMaxSourceBytes = 1u << 20;
  if (source.size() > kMaxSourceBytes) {
    throw Error("template: " + std::to_string(source.size()) + " bytes, expected at most " +
                std::to_string(kMaxSourceBytes));
  }
  return std::make_unique<GoChatTemplate>(source, std::move(today));
}

}  // namespace dsctl::templates::go
