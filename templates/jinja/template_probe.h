// Learns from a few trial renders what a template supports and which message form it wants: its
// text alone doesn't tell.
#pragma once

#include "templates/chat_template.h"
#include "templates/jinja/conversation.h"
#include "templates/jinja/template.h"

namespace dsctl::templates::jinja {

struct TemplateTraits {
  TemplateCapabilities capabilities;
  MessageShape shape;
  /// The template knows tool calls but shows no tools: the system message must name them.
  bool describe_tools = false;
};

/// Never throws: a template that fails a trial just lacks the trait.
TemplateTraits probe_template(const Template& parsed);

}  // namespace dsctl::templates::jinja
