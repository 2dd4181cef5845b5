// A chat template written in Jinja, as Hugging Face repositories and GGUF files carry them.
#pragma once

#include <string>
#include <string_view>

#include "templates/chat_template.h"
#include "templates/jinja/template.h"
#include "templates/jinja/template_probe.h"

namespace dsctl::templates {

/// Renders with Hugging Face's settings. Where templates disagree about the form of a message, the
/// form is learnt once by trial renders; where that fails, other forms are tried.
class JinjaChatTemplate : public ChatTemplate {
 public:
  /// Throws Error with line and column when the source doesn't parse.
  explicit JinjaChatTemplate(std::string_view source);

  std::string render(const RenderInput& input) const override;
  TemplateLanguage language() const override { return TemplateLanguage::kJinja; }
  const std::string& source() const override { return source_; }
  const TemplateCapabilities& capabilities() const override { return traits_.capabilities; }

 private:
  std::string render_shaped(const RenderInput& input) const;

  std::string source_;
  jinja::Template template_;
  jinja::TemplateTraits traits_;
};

}  // namespace dsctl::templates
