#include "templates/go/conversation.h"

#include <string>
#include <utility>

namespace dsctl::templates::go {
namespace {

std::string text_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : "";
}

Value any_of(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() ? Value() : Value::from_json(*found);
}

/// A list of strings; anything else in it is dropped.
Value strings_of(const Json& object, const char* key) {
  List list;
  if (const auto found = object.find(key); found != object.end() && found->is_array()) {
    for (const Json& item : *found) {
      if (item.is_string()) list.items.push_back(Value(item.get<std::string>()));
    }
  }
  return Value(std::move(list));
}

/// A schema's "type": one name prints as itself, several as Go prints a list.
Value type_of(const Json& object) {
  List list;
  const auto found = object.find("type");
  if (found != object.end() && found->is_string()) {
    list.items.push_back(Value(found->get<std::string>()));
  } else {
    list = *strings_of(object, "type").as_list();
  }
  list.text = list.items.size() == 1 ? *list.items[0].as_string()
              : list.items.empty()   ? ""
                                     : print_value(Value(list));
  list.json_text = list.items.size() == 1 ? to_json(list.items[0]) : "";
  list.print = PrintForm::kText;
  return Value(std::move(list));
}

Value property_value(const Json& property);

Value properties_of(const Json& object) {
  Map map;
  map.print = PrintForm::kJson;
  if (const auto found = object.find("properties"); found != object.end() && found->is_object()) {
    for (const auto& [name, property] : found->items()) {
      map.items[name] = property_value(property);
    }
  }
  return Value(std::move(map));
}

Value property_value(const Json& property) {
  Struct record;
  record.type_name = "api.ToolProperty";
  if (!property.is_object()) return Value(std::move(record));
  List any_of_list;
  if (const auto found = property.find("anyOf"); found != property.end() && found->is_array()) {
    for (const Json& item : *found)
      any_of_list.items.push_back(property_value(item));
  }
  record.fields = {
      {"AnyOf", "anyOf", Value(std::move(any_of_list)), Omit::kEmpty},
      {"Type", "type", type_of(property), Omit::kEmpty},
      {"Items", "items", any_of(property, "items"), Omit::kEmpty},
      {"Description", "description", Value(text_of(property, "description")), Omit::kEmpty},
      {"Enum", "enum", any_of(property, "enum"), Omit::kEmpty},
      {"Properties", "properties", properties_of(property), Omit::kEmpty},
      {"Required", "required", strings_of(property, "required"), Omit::kEmpty},
  };
  return Value(std::move(record));
}

Value parameters_value(const Json& function) {
  static const Json kNone = Json::object();
  const auto found = function.find("parameters");
  const Json& parameters = found != function.end() && found->is_object() ? *found : kNone;
  Struct record;
  record.type_name = "api.ToolFunctionParameters";
  record.print = PrintForm::kJson;
  record.fields = {
      {"Type", "type", Value(text_of(parameters, "type")), Omit::kNever},
      {"Defs", "$defs", any_of(parameters, "$defs"), Omit::kEmpty},
      {"Items", "items", any_of(parameters, "items"), Omit::kEmpty},
      {"Required", "required", strings_of(parameters, "required"), Omit::kEmpty},
      {"Properties", "properties", properties_of(parameters), Omit::kNever},
  };
  return Value(std::move(record));
}

Value tool_value(const Json& tool) {
  static const Json kNone = Json::object();
  const auto found = tool.find("function");
  const Json& function = found != tool.end() && found->is_object() ? *found : kNone;
  Struct inner;
  inner.type_name = "api.ToolFunction";
  inner.print = PrintForm::kJson;
  inner.fields = {
      {"Name", "name", Value(text_of(function, "name")), Omit::kNever},
      {"Description", "description", Value(text_of(function, "description")), Omit::kNever},
      {"Parameters", "parameters", parameters_value(function), Omit::kNever},
  };
  Struct record;
  record.type_name = "api.Tool";
  record.print = PrintForm::kJson;
  record.fields = {
      {"Type", "type", Value(text_of(tool, "type")), Omit::kNever},
      {"Items", "items", any_of(tool, "items"), Omit::kEmpty},
      {"Function", "function", Value(std::move(inner)), Omit::kNever},
  };
  return Value(std::move(record));
}

Value arguments_value(const Json& arguments) {
  Map map;
  map.print = PrintForm::kJson;
  if (arguments.is_object()) {
    for (const auto& [key, value] : arguments.items())
      map.items[key] = Value::from_json(value);
  }
  return Value(std::move(map));
}

Value tool_calls_value(const std::vector<ToolCall>& calls) {
  List list;
  for (size_t i = 0; i < calls.size(); ++i) {
    Struct function;
    function.type_name = "api.ToolCallFunction";
    function.fields = {
        {"Index", "index", Value(static_cast<int64_t>(i)), Omit::kNever},
        {"Name", "name", Value(calls[i].name), Omit::kNever},
        {"Arguments", "arguments", arguments_value(calls[i].arguments), Omit::kNever},
    };
    Struct call;
    call.type_name = "api.ToolCall";
    call.fields = {
        {"ID", "id", Value(calls[i].id), Omit::kEmpty},
        {"Function", "function", Value(std::move(function)), Omit::kNever},
    };
    list.items.push_back(Value(std::move(call)));
  }
  return Value(std::move(list));
}

}  // namespace

Value messages_value(const std::vector<Message>& messages) {
  List list;
  for (const Message& message : messages) {
    Struct record;
    record.type_name = "api.Message";
    record.fields = {
        {"Role", "role", Value(message.role), Omit::kNever},
        {"Content", "content", Value(message.content), Omit::kNever},
        {"Thinking", "thinking", Value(message.thinking.value_or("")), Omit::kEmpty},
        {"Images", "images", Value(List{}), Omit::kEmpty},
        {"ToolCalls", "tool_calls", tool_calls_value(message.tool_calls), Omit::kEmpty},
        {"ToolName", "tool_name", Value(message.tool_name), Omit::kEmpty},
        {"ToolCallID", "tool_call_id", Value(message.tool_call_id), Omit::kEmpty},
    };
    list.items.push_back(Value(std::move(record)));
  }
  return Value(std::move(list));
}

Value tools_value(const Json& tools) {
  List list;
  list.print = PrintForm::kJson;
  if (tools.is_array()) {
    for (const Json& tool : tools) {
      if (tool.is_object()) list.items.push_back(tool_value(tool));
    }
  }
  return Value(std::move(list));
}

}  // namespace dsctl::templates::go
