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

}  // namespace

JinjaChatTemplate::JinjaChatTemplate(std::string_view source)
    : source_(source), template_(source), traits_(jinja::probe_template(template_)) {}

std::string JinjaChatTemplate::render(const RenderInput& input) const {
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
