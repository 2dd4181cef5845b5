#include "templates/jinja/template.h"

#include "templates/jinja/interpreter.h"
#include "templates/jinja/lexer.h"
#include "templates/jinja/parser.h"

namespace dsctl::templates::jinja {

std::tm local_time_now() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  return local;
}

Template::Template(std::string_view source) : tree_(parse_template(source)) {}

std::string Template::render(const Json& variables, const RenderOptions& options) const {
  Interpreter interpreter(tree_, options);
  try {
    return interpreter.run(variables);
  } catch (const JinjaError& error) {
    throw JinjaError(error.kind(),
                     position_prefix(tree_.source, interpreter.offset()) + error.what());
  }
}

}  // namespace dsctl::templates::jinja
