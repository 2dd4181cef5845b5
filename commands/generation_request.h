// The one internal form of "generate text", whatever it came from: `run`, Ollama's API or OpenAI's.
// Whoever builds it has checked every field; nothing after it looks at JSON or flags again.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "commands/duration.h"
#include "commands/model_options.h"
#include "templates/message.h"

namespace dsctl::commands {

/// How the prompt is given: a conversation, one prompt for the model's template, or text and tokens
/// that go to the model as they are.
enum class PromptForm { kChat, kPrompt, kRaw };

/// What happens to a conversation longer than the context.
enum class Overlong { kDropOldest, kRefuse };

/// Whether the answer calls tools: never, as the model likes, at least one, or exactly this one.
struct ToolChoice {
  enum class Kind { kNone, kAuto, kRequired, kNamed };
  Kind kind = Kind::kAuto;
  std::string name;  // kNamed
};

struct GenerationRequest {
  std::string model;
  PromptForm form = PromptForm::kChat;
  std::vector<templates::Message> messages;    // kChat
  std::string prompt;                          // kPrompt, kRaw
  std::vector<int32_t> prompt_tokens;          // kRaw, instead of prompt
  std::string suffix;                          // kPrompt: fill in the middle
  std::vector<int32_t> context;                // kPrompt: tokens of the turns before
  std::optional<std::string> system;           // kPrompt: instead of the model's own
  std::optional<std::string> template_source;  // kPrompt: a Go template instead of the model's own
  std::optional<bool> think;                   // absent: yes when the model can
  std::string think_level;                     // "", low, medium, high, max
  std::string answer_prefix;                   // kChat: what the answer has begun with already
  /// More variables for a Jinja template.
  std::map<std::string, templates::Json> template_variables;
  /// kChat: OpenAI's list of tools, or null. Each has type "function", a name and parameters (an
  /// object's schema); with function.strict its calls obey that schema.
  templates::Json tools;
  ToolChoice tool_choice;
  bool parallel_tool_calls = true;  // else at most one call
  Overlong overlong = Overlong::kDropOldest;

  /// What the API assumes where neither model nor request says anything.
  engine::SamplingParams defaults;
  Options options;  // over the model's own parameters
  std::vector<std::pair<int32_t, float>> logit_bias;
  int n_logprobs = -1;  // as SamplingParams
  int n = 1;            // independent answers
  bool echo = false;    // kRaw: the prompt comes first in the text

  /// What the answer, without its thinking, must look like.
  std::optional<engine::GrammarSpec> grammar;

  std::optional<KeepAlive> keep_alive;
};

}  // namespace dsctl::commands
