// ChatTemplate: a conversation to the prompt text of a model, in either template language, and what
// a template reveals about the model (thinking, tools, fill in the middle).
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "templates/message.h"
#include "templates/tool_format.h"

namespace dsctl::templates {

enum class TemplateLanguage { kJinja, kGo };

/// What the template supports, read off its text.
struct TemplateCapabilities {
  bool tools = false;
  bool thinking = false;
  bool insert = false;     // a suffix: fill in the middle
  std::string think_open;  // "<think>" when thinking
  std::string think_close;
  std::optional<ToolFormat> tool_format{};  // when tools
};

/// A parsed template. Immutable; rendering is thread-safe and bounded in time and output.
class ChatTemplate {
 public:
  /// Parses `source`; throws Error with line and column ("template:3:14: ...").
  static std::unique_ptr<ChatTemplate> parse(TemplateLanguage language, std::string_view source);

  /// A built-in Jinja template for models that carry none, chosen by architecture and by which
  /// control tokens the vocabulary has (`has_token("<|im_start|>")`), or nothing when none fits.
  static std::optional<std::string_view> builtin(
      std::string_view architecture, const std::function<bool(std::string_view)>& has_token);

  virtual ~ChatTemplate() = default;

  /// The prompt text. Throws Error with line and column; a template's own raise_exception is an
  /// Error with its message.
  virtual std::string render(const RenderInput& input) const = 0;
  virtual TemplateLanguage language() const = 0;
  virtual const std::string& source() const = 0;
  virtual const TemplateCapabilities& capabilities() const = 0;
};

}  // namespace dsctl::templates
