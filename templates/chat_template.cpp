#include "templates/chat_template.h"

#include "templates/error.h"
#include "templates/go/go_chat_template.h"

namespace dsctl::templates {

std::unique_ptr<ChatTemplate> ChatTemplate::parse(TemplateLanguage language,
                                                  std::string_view source) {
  switch (language) {
    case TemplateLanguage::kJinja:
      throw Error("jinja templates are not built in yet");
    case TemplateLanguage::kGo:
      return go::parse_chat_template(source);
  }
  throw Error("unknown template language");
}

std::optional<std::string_view> ChatTemplate::builtin(
    std::string_view /*architecture*/, const std::function<bool(std::string_view)>& /*has_token*/) {
  return std::nullopt;
}

}  // namespace dsctl::templates
