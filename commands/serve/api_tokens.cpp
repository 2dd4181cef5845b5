#include "commands/serve/api_tokens.h"

#include <limits>
#include <utility>

#include "commands/serve/api_openai.h"
#include "commands/serve/json_fields.h"

namespace dsctl::commands::serve {
namespace {

using engine::AddSpecial;
using engine::SpecialTokens;

constexpr int kNoLimit = std::numeric_limits<int>::max();

// The one of `names` that is there.
std::string required_one_of(const Fields& fields, std::initializer_list<const char*> names) {
  std::optional<std::string> found;
  for (const char* name : names) {
    auto text = fields.text(name);
    if (!text) continue;
    if (found) {
      throw ApiError(400, std::string("field \"") + name + "\": a second text to be tokenized",
                     name);
    }
    found = std::move(text);
  }
  if (found) return *std::move(found);
  const char* first = *names.begin();
  throw ApiError(400, std::string("field \"") + first + "\" is missing: expected a string", first);
}

// vLLM's second form: a conversation, in the fields of /v1/chat/completions.
void parse_conversation(std::string_view body, const Fields& fields, TokenizeCall& call) {
  if (!fields.flag("add_generation_prompt").value_or(true)) {
    throw ApiError(400, "field \"add_generation_prompt\": only true is supported",
                   "add_generation_prompt");
  }
  if (fields.flag("continue_final_message").value_or(false)) {
    throw ApiError(400, "field \"continue_final_message\": only false is supported",
                   "continue_final_message");
  }
  fields.refuse({"chat_template"});
  call.request = parse_openai_chat(body).request;
  call.chat = true;
}

std::vector<int32_t> encode(const LoadedModel& model, const TokenizeCall& call) {
  if (call.chat) return build_prompt(model, call.request, kNoLimit).tokens;
  return model.tokenizer->encode(
      call.text, call.add_special ? AddSpecial::kYes : AddSpecial::kNo,
      call.parse_special ? SpecialTokens::kParse : SpecialTokens::kAsText);
}

Json pieces_json(const engine::Tokenizer& tokenizer, const std::vector<int32_t>& tokens) {
  Json pieces = Json::array();
  for (const int32_t token : tokens)
    pieces.push_back(tokenizer.piece(token, SpecialTokens::kParse));
  return pieces;
}

void tokenize(TextModels& models, const TokenizeCall& call, TokenForm form, Exchange& exchange) {
  const auto model = models.get(call.request.model);
  const std::vector<int32_t> tokens = encode(*model, call);
  Json body;
  if (form == TokenForm::kVllm) {
    body = {{"count", tokens.size()},
            {"max_model_len", model->context_length},
            {"tokens", tokens},
            {"token_strs", nullptr}};
  } else {
    body = {{"model", call.request.model}, {"tokens", tokens}, {"count", tokens.size()}};
  }
  if (call.wants_pieces) {
    body[form == TokenForm::kVllm ? "token_strs" : "pieces"] =
        pieces_json(*model->tokenizer, tokens);
  }
  exchange.respond({.body = dump(body), .headers = {}});
}

void detokenize(TextModels& models, const DetokenizeCall& call, TokenForm form,
                Exchange& exchange) {
  const auto model = models.get(call.model);
  std::vector<int32_t> tokens;
  for (const int64_t token : call.tokens) {
    if (token < 0 || token >= model->tokenizer->vocab_size()) {
      throw ApiError(400,
                     "field \"tokens\": token " + std::to_string(token) +
                         " is outside the vocabulary of " +
                         std::to_string(model->tokenizer->vocab_size()),
                     "tokens");
    }
    tokens.push_back(static_cast<int32_t>(token));
  }
  const std::string text = model->tokenizer->decode(
      tokens, call.with_special ? SpecialTokens::kParse : SpecialTokens::kAsText);
  const Json body = form == TokenForm::kVllm ? Json{{"prompt", text}}
                                             : Json{{"model", call.model}, {"text", text}};
  exchange.respond({.body = dump(body), .headers = {}});
}

void render(TextModels& models, const OllamaGenerate& parsed, Exchange& exchange) {
  const auto model = models.get(parsed.request.model);
  const Prompt prompt = build_prompt(*model, parsed.request, kNoLimit);
  const Json body = {
      {"model", parsed.request.model}, {"prompt", prompt.text}, {"count", prompt.tokens.size()}};
  exchange.respond({.body = dump(body), .headers = {}});
}

// What is thrown while a handler runs is the client's mistake, or the model's.
template <typename Function>
Handler handler(Function answer) {
  return
      [answer = std::move(answer)](HttpRequest request, const std::shared_ptr<Exchange>& exchange) {
        try {
          answer(request.body, *exchange);
        } catch (const std::exception&) {
          throw to_api_error(std::current_exception());
        }
      };
}

}  // namespace

TokenizeCall parse_tokenize(std::string_view body, TokenForm form) {
  const Json json = parse_body(body);
  const Fields fields(json);
  TokenizeCall call;
  call.request.model = fields.required_text("model");
  if (form == TokenForm::kVllm) {
    call.add_special = fields.flag("add_special_tokens").value_or(!fields.any("messages"));
    call.wants_pieces = fields.flag("return_token_strs").value_or(false);
    if (fields.any("messages")) {
      parse_conversation(body, fields, call);
    } else {
      call.text = required_one_of(fields, {"prompt"});
    }
    return call;
  }
  call.text = required_one_of(fields, {"text", "content", "prompt"});
  call.add_special = fields.flag("add_special").value_or(false);
  call.parse_special = fields.flag("parse_special").value_or(true);
  call.wants_pieces = fields.flag("with_pieces").value_or(false);
  return call;
}

DetokenizeCall parse_detokenize(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  DetokenizeCall call;
  call.model = fields.required_text("model");
  call.with_special = !fields.flag("skip_special_tokens").value_or(false);
  const Json* tokens = fields.array("tokens");
  if (!tokens) {
    throw ApiError(400, "field \"tokens\" is missing: expected an array of token ids", "tokens");
  }
  for (const Json& token : *tokens) {
    if (!token.is_number_integer()) fields.fail("tokens", "an array of token ids", token);
    call.tokens.push_back(token.get<int64_t>());
  }
  return call;
}

OllamaGenerate parse_render(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  return fields.any("messages") ? parse_ollama_chat(body) : parse_ollama_generate(body);
}

void add_token_routes(Router& router, TextModels& models) {
  for (const auto& [prefix, form] :
       {std::pair{"/api", TokenForm::kOllama}, std::pair{"", TokenForm::kVllm}}) {
    router.add("POST", std::string(prefix) + "/tokenize",
               handler([&models, form = form](const std::string& body, Exchange& exchange) {
                 tokenize(models, parse_tokenize(body, form), form, exchange);
               }));
    router.add("POST", std::string(prefix) + "/detokenize",
               handler([&models, form = form](const std::string& body, Exchange& exchange) {
                 detokenize(models, parse_detokenize(body), form, exchange);
               }));
  }
  router.add("POST", "/api/render", handler([&models](const std::string& body, Exchange& exchange) {
               render(models, parse_render(body), exchange);
             }));
}

}  // namespace dsctl::commands::serve
