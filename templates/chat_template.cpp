#include "templates/chat_template.h"

#include "templates/error.h"
#include "templates/go/go_chat_template.h"
#include "templates/jinja/jinja_chat_template.h"

namespace dsctl::templates {

std::unique_ptr<ChatTemplate> ChatTemplate::parse(TemplateLanguage language,
                                                  std::string_view source) {
  switch (language) {
    case TemplateLanguage::kJinja:
      return std::make_unique<JinjaChatTemplate>(source);
    case TemplateLanguage::kGo:
      return go::parse_chat_template(source);
  }
  throw Error("unknown template language");
}

}  // namespace dsctl::templates
