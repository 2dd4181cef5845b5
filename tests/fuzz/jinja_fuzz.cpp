// Fuzzes the Jinja lexer, parser and interpreter: the input is the template, the conversation is
// always the same.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "templates/error.h"
#include "templates/jinja/template.h"

namespace {

using dsctl::templates::Json;

const Json& variables() {
  static const Json kVariables = Json::parse(R"({
    "messages": [
      {"role": "system", "content": "You are helpful"},
      {"role": "user", "content": "H\u00e9llo \ud83e\udd99 <think>x</think>"},
      {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
        {"id": "call12345", "type": "function",
         "function": {"name": "f", "arguments": {"a": 1, "b": [2.5, true, null]}}}]},
      {"role": "tool", "content": "22C", "tool_call_id": "call12345", "name": "f"},
      {"role": "user", "content": [{"type": "text", "text": "part"}]}],
    "tools": [{"type": "function", "function": {"name": "f", "description": "d",
      "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}}],
    "add_generation_prompt": true, "bos_token": "<s>", "eos_token": "</s>",
    "x": 7, "l": [3, 1, 2], "d": {"k": "v", "items": 1}, "s": "Some Text", "f": 1.5, "n": null})");
  return kVariables;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  namespace jinja = dsctl::templates::jinja;
  jinja::RenderOptions options;
  options.limits.max_steps = 50'000;
  options.limits.max_created_bytes = 8u << 20;
  options.limits.max_string_bytes = 1u << 20;
  options.limits.max_items = 20'000;
  try {
    const jinja::Template parsed(std::string_view(reinterpret_cast<const char*>(data), size));
    parsed.render(variables(), options);
  } catch (const dsctl::templates::Error&) {
    // Refused as it should be.
  }
  return 0;
}
