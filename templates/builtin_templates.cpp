// Templates for models whose file carries none, told apart by the control tokens of the vocabulary.
#include <array>

#include "templates/chat_template.h"

namespace dsctl::templates {
namespace {

constexpr std::string_view kChatMl = R"({%- for message in messages -%}
{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant\n' }}
{%- endif -%}
)";

constexpr std::string_view kPhi4 = R"({%- for message in messages -%}
{{ '<|im_start|>' + message.role + '<|im_sep|>' + message.content + '<|im_end|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|im_start|>assistant<|im_sep|>' }}
{%- endif -%}
)";

constexpr std::string_view kLlama3 = R"({{- bos_token -}}
{%- for message in messages -%}
{%- set role = 'ipython' if message.role == 'tool' else message.role -%}
{{ '<|start_header_id|>' + role + '<|end_header_id|>\n\n' + message.content|trim + '<|eot_id|>' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif -%}
)";

constexpr std::string_view kGemma = R"({{- bos_token -}}
{%- set state = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set state.system = state.system + message.content|trim + '\n\n' -%}
{%- else -%}
{%- set role = 'model' if message.role == 'assistant' else 'user' -%}
{{ '<start_of_turn>' + role + '\n' }}
{%- if role == 'user' -%}
{{ state.system }}
{%- set state.system = '' -%}
{%- endif -%}
{{ message.content|trim + '<end_of_turn>\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<start_of_turn>model\n' }}
{%- endif -%}
)";

constexpr std::string_view kDeepSeek = R"({{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{{ message.content }}
{%- elif message.role == 'assistant' -%}
{{ '<｜Assistant｜>' + message.content.split('</think>')[-1]|trim + '<｜end▁of▁sentence｜>' }}
{%- else -%}
{{ '<｜User｜>' + message.content }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<｜Assistant｜>' }}
{%- endif -%}
)";

constexpr std::string_view kMistral = R"({{- bos_token -}}
{%- set state = namespace(system='') -%}
{%- for message in messages -%}
{%- if message.role == 'system' -%}
{%- set state.system = state.system + message.content + '\n\n' -%}
{%- elif message.role == 'assistant' -%}
{{ ' ' + message.content|trim + eos_token }}
{%- else -%}
{{ '[INST] ' + state.system + message.content + ' [/INST]' }}
{%- set state.system = '' -%}
{%- endif -%}
{%- endfor -%}
)";

constexpr std::string_view kPhi3 = R"({%- for message in messages -%}
{{ '<|' + message.role + '|>\n' + message.content + '<|end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ '<|assistant|>\n' }}
{%- endif -%}
)";

struct Builtin {
  std::string_view source;
  std::string_view family;                 // how the names of its architectures start, if they tell
  std::array<std::string_view, 3> tokens;  // all of them must be in the vocabulary
};

/// The more telling tokens first: several vocabularies also hold those of another family.
constexpr Builtin kBuiltins[] = {
    {kLlama3, "llama", {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"}},
    {kGemma, "gemma", {"<start_of_turn>", "<end_of_turn>", {}}},
    {kDeepSeek, "deepseek", {"<｜User｜>", "<｜Assistant｜>", {}}},
    {kPhi4, "phi", {"<|im_start|>", "<|im_sep|>", "<|im_end|>"}},
    {kChatMl, {}, {"<|im_start|>", "<|im_end|>", {}}},
    {kPhi3, "phi", {"<|user|>", "<|assistant|>", "<|end|>"}},
    {kMistral, {}, {"[INST]", "[/INST]", {}}},
};

}  // namespace

std::optional<std::string_view> ChatTemplate::builtin(
    std::string_view architecture, const std::function<bool(std::string_view)>& has_token) {
  const auto fits = [&](const Builtin& builtin) {
    for (const std::string_view token : builtin.tokens) {
      if (!token.empty() && !has_token(token)) return false;
    }
    return true;
  };
  // A base model's vocabulary without the tokens can't follow the form, whatever its architecture.
  for (const Builtin& builtin : kBuiltins) {
    const bool same_family = !builtin.family.empty() && architecture.starts_with(builtin.family);
    if (same_family && fits(builtin)) return builtin.source;
  }
  for (const Builtin& builtin : kBuiltins) {
    if (fits(builtin)) return builtin.source;
  }
  return std::nullopt;
}

}  // namespace dsctl::templates
