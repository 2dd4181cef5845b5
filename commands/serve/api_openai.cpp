#include "commands/serve/api_openai.h"

#include <atomic>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <limits>
#include <random>
#include <utility>

#include "commands/error.h"
#include "commands/serve/grammar_fields.h"
#include "commands/serve/json_fields.h"

namespace dsctl::commands::serve {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
constexpr size_t kMaxMessages = 100'000;
constexpr int kMaxAnswers = 64;
constexpr size_t kMaxStopStrings = 16;
constexpr size_t kMaxBiases = 1024;
constexpr int kMaxTopLogprobs = 20;
constexpr int kCompletionMaxTokens = 16;  // OpenAI's default for /v1/completions

int64_t unix_time() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

// Unique in this server and, for all practical purposes, among servers.
std::string new_id(const char* prefix) {
  static std::atomic<uint64_t> counter{std::random_device{}()};
  std::random_device random;
  char text[64];
  std::snprintf(text, sizeof(text), "%s-%08x%08x%08llx", prefix, random(), random(),
                static_cast<unsigned long long>(counter++ & 0xffffffff));
  return text;
}

[[noreturn]] void not_supported(const std::string& field, const std::string& what) {
  throw ApiError(400, "field \"" + field + "\": " + what + " is not supported yet", field,
                 "unsupported_parameter");
}

std::string parse_content(const Fields& fields, const std::string& path) {
  const Json* content = fields.any("content");
  if (!content) return "";
  if (content->is_string()) return content->get<std::string>();
  if (!content->is_array()) fields.fail("content", "a string or an array of parts", *content);
  std::string text;
  for (size_t i = 0; i < content->size(); ++i) {
    const std::string part_path = path + ".content[" + std::to_string(i) + "]";
    const Fields part((*content)[i], part_path);
    const std::string type = part.required_text("type");
    if (type != "text") not_supported(part_path + ".type", "\"" + type + "\"");
    text += part.text("text").value_or("");
  }
  return text;
}

templates::Message parse_message(const Json& value, const std::string& path) {
  const Fields fields(value, path);
  templates::Message message;
  message.role = fields.required_text("role");
  if (message.role == "developer") message.role = "system";
  if (message.role != "system" && message.role != "user" && message.role != "assistant" &&
      message.role != "tool") {
    throw ApiError(400,
                   "field \"" + path + ".role\": \"" + message.role +
                       "\", expected system, developer, user, assistant or tool",
                   path + ".role");
  }
  fields.refuse({"tool_calls", "function_call", "audio"});
  message.content = parse_content(fields, path);
  message.thinking = fields.text("reasoning_content");
  if (!message.thinking) message.thinking = fields.text("reasoning");
  message.tool_call_id = fields.text("tool_call_id").value_or("");
  return message;
}

void set_number(const Fields& fields, const char* name, double min, double max,
                GenerationRequest& request) {
  if (const auto value = fields.number(name, min, max)) request.options[name] = *value;
}

void set_integer(const Fields& fields, const char* name, int64_t min, int64_t max,
                 GenerationRequest& request, const char* option = nullptr) {
  if (const auto value = fields.integer(name, min, max)) {
    request.options[option ? option : name] = *value;
  }
}

void parse_stop(const Fields& fields, GenerationRequest& request) {
  const Json* stop = fields.any("stop");
  if (!stop) return;
  std::vector<std::string> texts;
  if (stop->is_string()) {
    texts.push_back(stop->get<std::string>());
  } else if (stop->is_array() && stop->size() <= kMaxStopStrings) {
    for (const Json& item : *stop) {
      if (!item.is_string()) fields.fail("stop", "a string or an array of strings", item);
      texts.push_back(item.get<std::string>());
    }
  } else {
    fields.fail("stop",
                "a string or an array of at most " + std::to_string(kMaxStopStrings) + " strings",
                *stop);
  }
  try {
    request.options["stop"] = check_option("stop", texts);
  } catch (const Error& error) {
    throw ApiError(400, error.what(), "stop");
  }
}

void parse_logit_bias(const Fields& fields, GenerationRequest& request) {
  const Json* biases = fields.object("logit_bias");
  if (!biases) return;
  if (biases->size() > kMaxBiases) {
    throw ApiError(400, "field \"logit_bias\": more than " + std::to_string(kMaxBiases) + " tokens",
                   "logit_bias");
  }
  for (const auto& [name, value] : biases->items()) {
    int32_t token = -1;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), token);
    if (error != std::errc() || end != name.data() + name.size() || token < 0) {
      throw ApiError(400, "field \"logit_bias\": key \"" + name + "\", expected a token id",
                     "logit_bias");
    }
    if (!value.is_number() || value.get<double>() < -100.0 || value.get<double>() > 100.0) {
      throw ApiError(400, "field \"logit_bias." + name + "\": expected a number from -100 to 100",
                     "logit_bias." + name);
    }
    request.logit_bias.emplace_back(token, value.get<float>());
  }
}

void parse_keep_alive_field(const Fields& fields, GenerationRequest& request) {
  const Json* value = fields.any("keep_alive");
  if (!value) return;
  if (value->is_number()) {
    request.keep_alive = keep_alive_from_seconds(value->get<double>());
    return;
  }
  try {
    request.keep_alive =
        parse_keep_alive(fields.text("keep_alive").value_or(""), BareNumber::kRefused);
  } catch (const Error& error) {
    throw ApiError(400, std::string("field \"keep_alive\": ") + error.what(), "keep_alive");
  }
}

void parse_effort(const Fields& fields, GenerationRequest& request) {
  auto effort = fields.text("reasoning_effort");
  if (const Json* reasoning = fields.object("reasoning"); reasoning && !effort) {
    effort = Fields(*reasoning, "reasoning").text("effort");
  }
  if (effort) {
    request.think = *effort != "none";
    if (*effort == "minimal") {
      request.think_level = "low";
    } else if (*effort == "xhigh" || *effort == "ultra") {
      request.think_level = "max";
    } else if (*effort == "low" || *effort == "medium" || *effort == "high" || *effort == "max") {
      request.think_level = *effort;
    } else if (*effort != "none") {
      throw ApiError(400,
                     "field \"reasoning_effort\": \"" + *effort +
                         "\", expected none, minimal, low, medium, high or max",
                     "reasoning_effort");
    }
  }
  if (const Json* more = fields.object("chat_template_kwargs")) {
    const Fields kwargs(*more, "chat_template_kwargs");
    for (const char* name : {"enable_thinking", "thinking"}) {
      if (const auto think = kwargs.flag(name)) request.think = *think;
    }
  }
}

// The fields that both endpoints have.
void parse_common(const Fields& fields, OpenAiGenerate& parsed) {
  GenerationRequest& request = parsed.request;
  request.model = fields.required_text("model");
  request.defaults.temperature = 1.0f;
  request.defaults.top_p = 1.0f;
  request.defaults.penalize_prompt = false;
  request.overlong = Overlong::kRefuse;
  parsed.stream = fields.flag("stream").value_or(false);
  if (const Json* options = fields.object("stream_options")) {
    if (!parsed.stream) {
      throw ApiError(400, "field \"stream_options\": only allowed when \"stream\" is true",
                     "stream_options");
    }
    parsed.include_usage = Fields(*options, "stream_options").flag("include_usage").value_or(false);
  }
  set_number(fields, "temperature", 0.0, 2.0, request);
  set_number(fields, "top_p", 0.0, 1.0, request);
  set_number(fields, "min_p", 0.0, 1.0, request);
  set_number(fields, "presence_penalty", -2.0, 2.0, request);
  set_number(fields, "frequency_penalty", -2.0, 2.0, request);
  set_integer(fields, "top_k", -1, kMaxInt, request);
  set_integer(fields, "min_tokens", 0, kMaxInt, request);
  set_integer(fields, "num_ctx", 4, 1 << 24, request);
  set_integer(fields, "seed", std::numeric_limits<int64_t>::min() / 2,
              std::numeric_limits<int64_t>::max() / 2, request);
  if (const auto penalty = fields.number("repetition_penalty", 0.0, 1e6)) {
    request.options["repeat_penalty"] = *penalty;
  }
  if (const auto ignore = fields.flag("ignore_eos")) request.options["ignore_eos"] = *ignore;
  request.n = static_cast<int>(fields.integer("n", 1, kMaxAnswers).value_or(1));
  parse_stop(fields, request);
  parse_logit_bias(fields, request);
  parse_keep_alive_field(fields, request);
  request.grammar = parse_grammar_fields(fields);
  fields.refuse({"stop_token_ids"});
}

Json bytes_json(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text)
    bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return bytes;
}

Json token_json(const TokenText& token) {
  return {{"token", token.text}, {"logprob", token.logprob}, {"bytes", bytes_json(token.text)}};
}

Json chat_logprobs(const std::vector<TokenLogprobs>& logprobs) {
  Json content = Json::array();
  for (const TokenLogprobs& entry : logprobs) {
    Json item = token_json(entry.chosen);
    Json top = Json::array();
    for (const TokenText& token : entry.top)
      top.push_back(token_json(token));
    item["top_logprobs"] = std::move(top);
    content.push_back(std::move(item));
  }
  return {{"content", std::move(content)}, {"refusal", nullptr}};
}

// The older form of /v1/completions; `offset` is where the first token's text begins.
Json completion_logprobs(const std::vector<TokenLogprobs>& logprobs, size_t& offset) {
  Json result = {{"tokens", Json::array()},
                 {"token_logprobs", Json::array()},
                 {"top_logprobs", Json::array()},
                 {"text_offset", Json::array()}};
  for (const TokenLogprobs& entry : logprobs) {
    result["tokens"].push_back(entry.chosen.text);
    result["token_logprobs"].push_back(entry.chosen.logprob);
    Json top = Json::object();
    for (const TokenText& token : entry.top) {
      // A key must be text: bytes of half a character are written out.
      top[Json::parse(dump(token.text)).get<std::string>()] = token.logprob;
    }
    result["top_logprobs"].push_back(std::move(top));
    result["text_offset"].push_back(offset);
    offset += entry.chosen.text.size();
  }
  return result;
}

const char* finish_reason(engine::FinishReason reason) {
  return reason == engine::FinishReason::kLength ? "length" : "stop";
}

Json usage_json(const GenerationSummary& summary) {
  return {{"prompt_tokens", summary.n_prompt_tokens},
          {"completion_tokens", summary.n_generated_tokens},
          {"total_tokens", summary.n_prompt_tokens + summary.n_generated_tokens},
          {"prompt_tokens_details", {{"cached_tokens", summary.n_cached_tokens}}}};
}

class OpenAiWriter final : public AnswerWriter {
 public:
  OpenAiWriter(std::shared_ptr<Exchange> exchange, const OpenAiGenerate& parsed)
      : exchange_(std::move(exchange)),
        model_(parsed.request.model),
        chat_(parsed.chat),
        stream_(parsed.stream),
        include_usage_(parsed.include_usage),
        logprobs_(parsed.request.n_logprobs >= 0),
        id_(new_id(parsed.chat ? "chatcmpl" : "cmpl")),
        created_(unix_time()),
        answers_(static_cast<size_t>(parsed.request.n)) {}

  void begin(const GenerationSummary&) override {
    begun_ = true;
    if (!stream_) return;
    exchange_->begin_stream("text/event-stream");
    if (!chat_) return;
    for (size_t i = 0; i < answers_.size(); ++i) {
      send_choice({{"index", i},
                   {"delta", {{"role", "assistant"}, {"content", ""}}},
                   {"logprobs", nullptr},
                   {"finish_reason", nullptr}});
    }
  }

  void piece(int index, const TextPiece& piece) override {
    Answer& answer = answers_[static_cast<size_t>(index)];
    if (!stream_) {
      answer.text.content += piece.content;
      answer.text.thinking += piece.thinking;
      answer.text.logprobs.insert(answer.text.logprobs.end(), piece.logprobs.begin(),
                                  piece.logprobs.end());
      return;
    }
    Json choice = {{"index", index}};
    if (chat_) {
      Json delta = Json::object();
      // Thoughts come before the answer: a piece that ends them may hold both.
      if (!piece.thinking.empty()) {
        delta["reasoning"] = piece.thinking;
        delta["reasoning_content"] = piece.thinking;
      }
      if (!piece.content.empty() || piece.thinking.empty()) delta["content"] = piece.content;
      choice["delta"] = std::move(delta);
    } else {
      choice["text"] = piece.content;
    }
    choice["logprobs"] = logprobs_json(piece.logprobs, answer);
    choice["finish_reason"] = nullptr;
    send_choice(std::move(choice));
  }

  void end_answer(int index, const AnswerEnd& end) override {
    Answer& answer = answers_[static_cast<size_t>(index)];
    answer.reason = end.reason;
    if (!stream_) return;
    Json choice = {{"index", index}};
    if (chat_) {
      choice["delta"] = Json::object();
    } else {
      choice["text"] = "";
    }
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = finish_reason(end.reason);
    send_choice(std::move(choice));
  }

  void finish(const GenerationSummary& summary) override {
    if (stream_) {
      if (include_usage_) {
        Json chunk = head(true);
        chunk["choices"] = Json::array();
        chunk["usage"] = usage_json(summary);
        send(chunk);
      }
      exchange_->write("data: [DONE]\n\n");
      exchange_->end_stream();
      return;
    }
    Json body = head(false);
    body["choices"] = Json::array();
    for (size_t i = 0; i < answers_.size(); ++i)
      body["choices"].push_back(whole_choice(i));
    body["usage"] = usage_json(summary);
    exchange_->respond({.body = dump(body), .headers = {}});
  }

  void fail(const ApiError& error) override {
    if (stream_ && begun_) {
      exchange_->write("data: " + error_json(ErrorForm::kOpenAi, error) + "\n\n");
      exchange_->end_stream();
    } else {
      exchange_->respond(error_response(ErrorForm::kOpenAi, error));
    }
  }

 private:
  struct Answer {
    TextPiece text;
    size_t offset = 0;
    engine::FinishReason reason = engine::FinishReason::kStop;
  };

  Json head(bool chunk) const {
    const char* object = !chat_  ? "text_completion"
                         : chunk ? "chat.completion.chunk"
                                 : "chat.completion";
    return {{"id", id_},
            {"object", object},
            {"created", created_},
            {"model", model_},
            {"system_fingerprint", "fp_dsctl"}};
  }

  Json logprobs_json(const std::vector<TokenLogprobs>& logprobs, Answer& answer) const {
    if (!logprobs_ || logprobs.empty()) return nullptr;
    return chat_ ? chat_logprobs(logprobs) : completion_logprobs(logprobs, answer.offset);
  }

  Json whole_choice(size_t index) {
    Answer& answer = answers_[index];
    Json choice = {{"index", index}};
    if (chat_) {
      Json message = {{"role", "assistant"}, {"content", answer.text.content}};
      if (!answer.text.thinking.empty()) {
        message["reasoning"] = answer.text.thinking;
        message["reasoning_content"] = answer.text.thinking;
      }
      choice["message"] = std::move(message);
    } else {
      choice["text"] = answer.text.content;
    }
    choice["logprobs"] = logprobs_json(answer.text.logprobs, answer);
    choice["finish_reason"] = finish_reason(answer.reason);
    return choice;
  }

  void send_choice(Json choice) {
    Json chunk = head(true);
    chunk["choices"] = Json::array({std::move(choice)});
    if (include_usage_) chunk["usage"] = nullptr;
    send(chunk);
  }

  void send(const Json& chunk) { exchange_->write("data: " + dump(chunk) + "\n\n"); }

  std::shared_ptr<Exchange> exchange_;
  const std::string model_;
  const bool chat_;
  const bool stream_;
  const bool include_usage_;
  const bool logprobs_;
  const std::string id_;
  const int64_t created_;
  bool begun_ = false;
  std::vector<Answer> answers_;
};

void generate(const ApiContext& context, OpenAiGenerate parsed,
              const std::shared_ptr<Exchange>& exchange) {
  auto writer = std::make_unique<OpenAiWriter>(exchange, parsed);
  GenerationJob::start(context.jobs, std::move(parsed.request), exchange, std::move(writer));
}

Json model_json(const registry::ModelEntry& entry) {
  const auto created =
      std::chrono::duration_cast<std::chrono::seconds>(entry.modified_at.time_since_epoch());
  return {{"id", entry.name.short_form()},
          {"object", "model"},
          {"created", created.count()},
          {"owned_by", entry.name.owner}};
}

void list_models(const ApiContext& context, Exchange& exchange) {
  Json data = Json::array();
  for (const registry::ModelEntry& entry : context.registry.list().models)
    data.push_back(model_json(entry));
  const Json body = {{"object", "list"}, {"data", std::move(data)}};
  exchange.respond({.body = dump(body), .headers = {}});
}

void show_model(const ApiContext& context, const std::string& id, Exchange& exchange) {
  const auto wanted = registry::ModelName::try_parse(id);
  for (const registry::ModelEntry& entry : context.registry.list().models) {
    if (!wanted || !entry.name.same_as(*wanted)) continue;
    Json body = model_json(entry);
    body["id"] = id;
    exchange.respond({.body = dump(body), .headers = {}});
    return;
  }
  throw ApiError(404, "model '" + id + "' not found", "model", "model_not_found");
}

void parse_prompt(const Fields& fields, GenerationRequest& request) {
  const Json* prompt = fields.any("prompt");
  if (!prompt) throw ApiError(400, "field \"prompt\" is missing: expected a string", "prompt");
  const Json* one = prompt;
  // A list of one prompt is that prompt.
  if (prompt->is_array() && !prompt->empty() && !prompt->front().is_number()) {
    if (prompt->size() > 1) not_supported("prompt", "a list of several prompts");
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
    if (!token.is_number_integer() || token.get<int64_t>() < 0 || token.get<int64_t>() > kMaxInt) {
      fields.fail("prompt", "a string or an array of token ids", token);
    }
    request.prompt_tokens.push_back(token.get<int32_t>());
  }
}

}  // namespace

OpenAiGenerate parse_openai_chat(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  OpenAiGenerate parsed;
  parse_common(fields, parsed);
  GenerationRequest& request = parsed.request;
  fields.refuse(
      {"tools", "functions", "function_call", "audio", "prediction", "web_search_options"});
  if (const Json* choice = fields.any("tool_choice");
      choice && *choice != "none" && *choice != "auto") {
    not_supported("tool_choice", "choosing a tool");
  }
  if (const Json* modalities = fields.array("modalities")) {
    for (const Json& modality : *modalities) {
      if (modality != "text") not_supported("modalities", modality.dump());
    }
  }
  set_integer(fields, "max_tokens", 1, kMaxInt, request, "num_predict");
  set_integer(fields, "max_completion_tokens", 1, kMaxInt, request, "num_predict");
  parse_effort(fields, request);
  const bool logprobs = fields.flag("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top.value_or(0) > 0 && !logprobs) {
    throw ApiError(400, "field \"top_logprobs\": only allowed when \"logprobs\" is true",
                   "top_logprobs");
  }
  if (logprobs) request.n_logprobs = static_cast<int>(top.value_or(0));
  const Json* messages = fields.array("messages");
  if (!messages || messages->empty()) {
    throw ApiError(400, "field \"messages\" is missing: expected an array of messages", "messages");
  }
  if (messages->size() > kMaxMessages) {
    throw ApiError(400, "field \"messages\": more than " + std::to_string(kMaxMessages),
                   "messages");
  }
  for (size_t i = 0; i < messages->size(); ++i) {
    request.messages.push_back(
        parse_message((*messages)[i], "messages[" + std::to_string(i) + "]"));
  }
  return parsed;
}

OpenAiGenerate parse_openai_completion(std::string_view body) {
  const Json json = parse_body(body);
  const Fields fields(json);
  OpenAiGenerate parsed;
  parsed.chat = false;
  parse_common(fields, parsed);
  GenerationRequest& request = parsed.request;
  request.form = PromptForm::kRaw;
  parse_prompt(fields, request);
  request.suffix = fields.text("suffix").value_or("");
  // Filling in the middle is the template's business; everything else is raw here.
  if (!request.suffix.empty()) request.form = PromptForm::kPrompt;
  request.options["num_predict"] = static_cast<int64_t>(kCompletionMaxTokens);
  set_integer(fields, "max_tokens", 0, kMaxInt, request, "num_predict");
  if (const auto n = fields.integer("logprobs", 0, kMaxTopLogprobs)) {
    request.n_logprobs = static_cast<int>(*n);
  }
  request.echo = fields.flag("echo").value_or(false);
  if (request.echo &&
      (request.n_logprobs >= 0 || !request.prompt_tokens.empty() || !request.suffix.empty())) {
    not_supported("echo", "echo with logprobs, token ids or suffix");
  }
  const auto best_of = fields.integer("best_of", 1, kMaxAnswers);
  if (best_of && *best_of != request.n) not_supported("best_of", "a best_of other than n");
  return parsed;
}

void add_openai(Router& router, const ApiContext& context) {
  router.add("POST", "/v1/chat/completions", [&context](HttpRequest request, auto exchange) {
    generate(context, parse_openai_chat(request.body), exchange);
  });
  router.add("POST", "/v1/completions", [&context](HttpRequest request, auto exchange) {
    generate(context, parse_openai_completion(request.body), exchange);
  });
  router.add("GET", "/v1/models",
             [&context](HttpRequest, auto exchange) { list_models(context, *exchange); });
  router.add("GET", "/v1/models/*", [&context](HttpRequest request, auto exchange) {
    show_model(context, request.path.substr(sizeof("/v1/models/") - 1), *exchange);
  });
  for (const char* path : {"/v1/embeddings", "/v1/responses", "/v1/images/generations",
                           "/v1/audio/transcriptions"}) {
    router.add("POST", path, [](HttpRequest request, auto) {
      throw ApiError(400, request.path + " is not supported yet");
    });
  }
}

}  // namespace dsctl::commands::serve
