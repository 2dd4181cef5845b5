// POST /v1/completions: its fields.
#include "commands/serve/openai_fields.h"

namespace dsctl::commands::serve {
namespace {

constexpr int kCompletionMaxTokens = 16;  // OpenAI's default

void parse_prompt(const Fields& fields, GenerationRequest& request) {
  const Json* prompt = fields.any("prompt");
  if (!prompt) throw ApiError(400, "field \"prompt\" is missing: expected a string", "prompt");
  const Json* one = prompt;
  // A list of one prompt is that prompt.
  if (prompt->is_array() && !prompt->empty() && !prompt->front().is_number()) {
    if (prompt->size() > 1) openai_not_supported("prompt", "a list of several prompts");
    one = &prompt->front();
  }
  if (one->is_string()) {
    request.prompt = one->get<std::string>();
    return;
  }
  if (!one->is_array() || one->empty()) {
    fields.fail("prompt", "a string or an array of token ids", *prompt);
  }
  for (const Json& token : *one) {
    if (!token.is_number_integer() || token.get<int64_t>() < 0 ||
        token.get<int64_t>() > kMaxOpenAiInt) {
      fields.fail("prompt", "a string or an array of token ids", token);
    }
    request.prompt_tokens.push_back(token.get<int32_t>());
  }
}

}  // namespace

OpenAiGenerate parse_openai_completion(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  OpenAiGenerate parsed;
  parsed.chat = false;
  parse_openai_common(fields, parsed);
  GenerationRequest& request = parsed.request;
  request.form = PromptForm::kRaw;
  parse_prompt(fields, request);
  request.suffix = fields.text("suffix").value_or("");
  // Filling in the middle is the template's business; everything else is raw here.
  if (!request.suffix.empty()) request.form = PromptForm::kPrompt;
  request.options["num_predict"] = static_cast<int64_t>(kCompletionMaxTokens);
  set_openai_integer(fields, "max_tokens", 0, kMaxOpenAiInt, request, "num_predict");
  if (const auto n = fields.integer("logprobs", 0, kMaxOpenAiTopLogprobs)) {
    request.n_logprobs = static_cast<int>(*n);
  }
  request.echo = fields.flag("echo").value_or(false);
  if (request.echo &&
      (request.n_logprobs >= 0 || !request.prompt_tokens.empty() || !request.suffix.empty())) {
    openai_not_supported("echo", "echo with logprobs, token ids or suffix");
  }
  const auto best_of = fields.integer("best_of", 1, kMaxOpenAiAnswers);
  if (best_of && *best_of != request.n) openai_not_supported("best_of", "a best_of other than n");
  return parsed;
}

}  // namespace dsctl::commands::serve
