#include "templates/jinja/jinja_chat_template.h"

#include <algorithm>
#include <exception>

namespace dsctl::templates {
namespace {

using jinja::MessageShape;

/// The forms to try after the first one failed on a wrong type.
std::vector<MessageShape> other_shapes(const MessageShape& first) {
  std::vector<MessageShape> shapes;
  for (const bool null_content : {first.null_content, !first.null_content}) {
    for (const bool as_text : {first.arguments_as_text, !first.arguments_as_text}) {
      MessageShape shape = first;
      shape.null_content = null_content;
      shape.arguments_as_text = as_text;
      if (shapes.empty() || null_content != first.null_content ||
          as_text != first.arguments_as_text) {
        shapes.push_back(shape);
      }
    }
  }
  shapes.erase(shapes.begin());
  return shapes;
}

bool has_tool_calls(const RenderInput& input) {
  return std::any_of(input.messages.begin(), input.messages.end(),
                     [](const Message& message) { return !message.tool_calls.empty(); });
}

/// The tools in words, for models whose templates know calls but show no tools.
std::string describe_tools(const Json& tools, const ToolFormat& format) {
  std::string text = "## Tools\n\nThese functions can be called:\n";
  for (const Json& tool : tools) {
    const Json function = tool.value("function", Json::object());
    text += "\n### " + function.value("name", std::string());
    const std::string description = function.value("description", std::string());
    if (!description.empty()) text += "\nDescription: " + description;
    text += "\nParameters: " + function.value("parameters", Json::object()).dump() + "\n";
  }
  text += "\nTo call one, write exactly this, with the function's name for NAME and a JSON object";
  text += " that follows its parameters for ARGUMENTS:\n\n" + format.open;
  text += format.before_name + "NAME" + format.before_arguments + "ARGUMENTS";
  text += format.after_arguments + format.close;
  return text;
}

/// The same conversation with its tools described in the system message.
RenderInput with_described_tools(const RenderInput& input, const ToolFormat& format) {
  RenderInput described = input;
  const std::string text = describe_tools(input.tools, format);
  described.tools = nullptr;
  if (described.messages.empty() || described.messages.front().role != "system") {
    Message system;
    system.role = "system";
    described.messages.insert(described.messages.begin(), system);
  }
  std::string& content = described.messages.front().content;
  content += (content.empty() ? "" : "\n\n") + text;
  return described;
}

/// The same tools with descriptions, empty ones, where templates expect them without asking.
Json with_descriptions(Json tools) {
  for (Json& tool : tools) {
    if (!tool.contains("function") || !tool["function"].is_object()) continue;
    Json& function = tool["function"];
    if (!function.contains("description")) function["description"] = "";
    if (!function.contains("parameters") || !function["parameters"].is_object()) continue;
    Json& parameters = function["parameters"];
    if (!parameters.contains("properties") || !parameters["properties"].is_object()) continue;
    for (auto& [name, property] : parameters["properties"].items()) {
      if (property.is_object() && !property.contains("description")) property["description"] = "";
    }
  }
  return tools;
}

}  // namespace

JinjaChatTemplate::JinjaChatTemplate(std::string_view source)
    : source_(source), template_(source), traits_(jinja::probe_template(template_)) {}

std::string JinjaChatTemplate::render(const RenderInput& input) const {
  if (input.tools.empty()) return render_shaped(input);
  if (traits_.describe_tools) {
    return render_shaped(with_described_tools(input, *traits_.capabilities.tool_format));
  }
  try {
    return render_shaped(input);
  } catch (const jinja::JinjaError& error) {
    if (error.kind() != jinja::ErrorKind::kUndefined && error.kind() != jinja::ErrorKind::kType) {
      throw;
    }
    RenderInput described = input;
    described.tools = with_descriptions(input.tools);
    if (described.tools == input.tools) throw;
    try {
      return render_shaped(described);
    } catch (const Error&) {
      // The first error is the one to report.
    }
    throw;
  }
}

/// Renders in the form that the template wants.
std::string JinjaChatTemplate::render_shaped(const RenderInput& input) const {
  const auto attempt = [&](const MessageShape& shape) {
    return template_.render(jinja::conversation_variables(input, shape));
  };
  try {
    return attempt(traits_.shape);
  } catch (const jinja::JinjaError& error) {
    if (error.kind() != jinja::ErrorKind::kType || !has_tool_calls(input)) throw;
    for (const MessageShape& shape : other_shapes(traits_.shape)) {
      try {
        return attempt(shape);
      } catch (const Error&) {
        // The first error is the one to report.
      }
    }
    throw;
  } catch (const RaisedError& error) {
    // Mistral's templates accept only their own kind of tool call ids.
    if (std::string_view(error.what()).find("Tool call IDs") == std::string_view::npos) throw;
    MessageShape shape = traits_.shape;
    shape.short_tool_call_ids = true;
    return attempt(shape);
  }
}

}  // namespace dsctl::templates
