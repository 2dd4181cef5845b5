// A parsed Jinja template and its rendering with variables: the language alone, without anything
// that is known about chats. JinjaChatTemplate puts the conversation on top.
#pragma once

#include <ctime>
#include <functional>
#include <string>
#include <string_view>

#include "templates/jinja/ast.h"
#include "templates/jinja/budget.h"
#include "templates/message.h"

namespace dsctl::templates::jinja {

/// The machine's local time.
std::tm local_time_now();

struct RenderOptions {
  Limits limits;
  std::function<std::tm()> local_time = local_time_now;  // what strftime_now shows
};

/// Immutable; render may be called from several threads at once.
class Template {
 public:
  /// Throws JinjaError(kSyntax) with "template:LINE:COLUMN: " in front.
  explicit Template(std::string_view source);

  /// The text, with the members of the JSON object as variables. Throws JinjaError with the
  /// position, and RaisedError for the template's own raise_exception.
  std::string render(const Json& variables, const RenderOptions& options = {}) const;

  const TemplateTree& tree() const { return tree_; }

 private:
  TemplateTree tree_;
};

}  // namespace dsctl::templates::jinja
