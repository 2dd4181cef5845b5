#include "commands/serve/api_anthropic.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <limits>
#include <random>
#include <utility>

#include "commands/error.h"
#include "commands/serve/json_fields.h"

namespace dsctl::commands::serve {
namespace {

constexpr int64_t kMaxInt = std::numeric_limits<int>::max();
constexpr size_t kMaxMessages = 100'000;
constexpr size_t kMaxStopStrings = 64;
constexpr int64_t kMinBudgetTokens = 1024;

[[noreturn]] void not_supported(const std::string& field, const std::string& what) {
  throw ApiError(400, field + ": " + what + " is not supported yet", field);
}

std::string new_id() {
  static std::atomic<uint64_t> counter{std::random_device{}()};
  std::random_device random;
  char text[64];
  std::snprintf(text, sizeof(text), "msg_%08x%08x%08llx", random(), random(),
                static_cast<unsigned long long>(counter++ & 0xffffffff));
  return text;
}

// A turn's content: a text, or blocks of which thoughts are kept apart.
void parse_content(const Json& content, const std::string& path, templates::Message& message) {
  if (content.is_string()) {
    message.content = content.get<std::string>();
    return;
  }
  if (!content.is_array()) {
    throw ApiError(400,
                   "field \"" + path + "\": expected a string or an array of blocks, found " +
                       std::string(json_kind(content)),
                   path);
  }
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string block_path = path + "[" + std::to_string(i) + "]";
    const Fields block(content[i], block_path);
    const std::string type = block.required_text("type");
    if (type == "text") {
      message.content += block.text("text").value_or("");
    } else if (type == "thinking" && message.role == "assistant") {
      message.thinking = message.thinking.value_or("") + block.text("thinking").value_or("");
    } else if (type == "redacted_thinking" && message.role == "assistant") {
      continue;  // nobody here could read it
    } else {
      not_supported(block_path + ".type", "\"" + type + "\"");
    }
  }
}

templates::Message parse_message(const Json& value, const std::string& path) {
  const Fields fields(value, path);
  templates::Message message;
  message.role = fields.required_text("role");
  if (message.role != "user" && message.role != "assistant") {
    throw ApiError(400,
                   "field \"" + path + ".role\": \"" + message.role +
                       "\", expected user or assistant; the system prompt is the field \"system\"",
                   path + ".role");
  }
  const Json* content = fields.any("content");
  if (!content) {
    throw ApiError(400, "field \"" + path + ".content\" is missing: expected a string or an array",
                   path + ".content");
  }
  parse_content(*content, path + ".content", message);
  return message;
}

// Turns of one role in a row are one turn, as Anthropic has it; templates want them to alternate.
void append(std::vector<templates::Message>& messages, templates::Message message) {
  if (messages.empty() || messages.back().role != message.role) {
    messages.push_back(std::move(message));
    return;
  }
  templates::Message& last = messages.back();
  if (!last.content.empty() && !message.content.empty()) last.content += "\n\n";
  last.content += message.content;
  if (message.thinking) last.thinking = last.thinking.value_or("") + *message.thinking;
}

void parse_messages(const Fields& fields, GenerationRequest& request) {
  if (const Json* system = fields.any("system")) {
    templates::Message message;
    message.role = "system";
    parse_content(*system, "system", message);
    if (!message.content.empty()) request.messages.push_back(std::move(message));
  }
  const Json* messages = fields.array("messages");
  if (!messages || messages->empty()) {
    throw ApiError(400, "field \"messages\" is missing: expected an array of messages", "messages");
  }
  if (messages->size() > kMaxMessages) {
    throw ApiError(400, "field \"messages\": more than " + std::to_string(kMaxMessages),
                   "messages");
  }
  for (size_t i = 0; i < messages->size(); ++i)
    append(request.messages, parse_message((*messages)[i], "messages[" + std::to_string(i) + "]"));
}

// A last turn of the assistant is the beginning of the answer.
void take_answer_prefix(GenerationRequest& request) {
  if (request.messages.back().role != "assistant") return;
  request.answer_prefix = std::move(request.messages.back().content);
  request.messages.pop_back();
  if (request.messages.empty() || request.messages.back().role != "user") {
    throw ApiError(400, "field \"messages\": expected a message of the user before the assistant's",
                   "messages");
  }
  const std::string& prefix = request.answer_prefix;
  if (!prefix.empty() &&
      std::string_view(" \t\r\n").find(prefix.back()) != std::string_view::npos) {
    throw ApiError(
        400, "field \"messages\": final assistant content cannot end with trailing whitespace",
        "messages");
  }
  if (request.think.value_or(true)) {
    throw ApiError(
        400,
        "field \"messages\": the last message can't be the assistant's when \"thinking\" "
        "is enabled",
        "messages");
  }
}

// The budget is checked but has no effect: a model thinks as long as it does. A model that can't
// think is asked all the same, as clients ask every model.
void parse_thinking(const Fields& fields, GenerationRequest& request) {
  request.think = false;
  const Json* object = fields.object("thinking");
  if (!object) return;
  const Fields thinking(*object, "thinking");
  const std::string type = thinking.required_text("type");
  if (type == "disabled") return;
  if (type != "enabled" && type != "adaptive") {
    throw ApiError(
        400, "field \"thinking.type\": \"" + type + "\", expected enabled, adaptive or disabled",
        "thinking.type");
  }
  request.think.reset();
  const auto budget = thinking.integer("budget_tokens", kMinBudgetTokens, kMaxInt);
  if (type == "enabled" && !budget) {
    throw ApiError(400, "field \"thinking.budget_tokens\" is missing: expected a whole number",
                   "thinking.budget_tokens");
  }
  const auto max_tokens = fields.integer("max_tokens", 1, kMaxInt);
  if (budget && max_tokens && *budget >= *max_tokens) {
    throw ApiError(400, "field \"thinking.budget_tokens\": expected less than \"max_tokens\"",
                   "thinking.budget_tokens");
  }
}

void parse_output_format(const Json& value, const std::string& path, GenerationRequest& request) {
  const Fields format(value, path);
  const std::string type = format.required_text("type");
  if (type != "json_schema") {
    throw ApiError(400, "field \"" + path + ".type\": \"" + type + "\", expected json_schema",
                   path + ".type");
  }
  const Json* schema = format.object("schema");
  if (!schema) {
    throw ApiError(400, "field \"" + path + ".schema\" is missing: expected an object",
                   path + ".schema");
  }
  engine::GrammarSpec grammar;
  grammar.kind = engine::GrammarSpec::Kind::kJsonSchema;
  grammar.source = dump(*schema);
  request.grammar = std::move(grammar);
}

void parse_output(const Fields& fields, GenerationRequest& request) {
  if (const Json* format = fields.object("output_format")) {
    parse_output_format(*format, "output_format", request);
  }
  const Json* object = fields.object("output_config");
  if (!object) return;
  const Fields output(*object, "output_config");
  if (const Json* format = output.object("format")) {
    parse_output_format(*format, "output_config.format", request);
  }
  const auto effort = output.text("effort");
  if (!effort) return;
  if (*effort != "low" && *effort != "medium" && *effort != "high" && *effort != "xhigh" &&
      *effort != "max") {
    throw ApiError(400,
                   "field \"output_config.effort\": \"" + *effort +
                       "\", expected low, medium, high, xhigh or max",
                   "output_config.effort");
  }
  request.think_level = *effort == "xhigh" ? "max" : *effort;
}

void parse_stop_sequences(const Fields& fields, AnthropicMessages& parsed) {
  const Json* stop = fields.array("stop_sequences");
  if (!stop) return;
  if (stop->size() > kMaxStopStrings) {
    throw ApiError(400, "field \"stop_sequences\": more than " + std::to_string(kMaxStopStrings),
                   "stop_sequences");
  }
  for (const Json& item : *stop) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty()) {
      fields.fail("stop_sequences", "an array of strings, none empty", item);
    }
    parsed.stop_sequences.push_back(item.get<std::string>());
  }
  if (parsed.stop_sequences.empty()) return;
  try {
    parsed.request.options["stop"] = check_option("stop", parsed.stop_sequences);
  } catch (const Error& error) {
    throw ApiError(400, std::string("field \"stop_sequences\": ") + error.what(), "stop_sequences");
  }
}

void parse_sampling(const Fields& fields, GenerationRequest& request) {
  request.defaults.temperature = 1.0f;
  request.defaults.top_p = 1.0f;
  request.defaults.top_k = 0;
  request.defaults.penalize_prompt = false;
  if (const auto value = fields.number("temperature", 0.0, 2.0)) {
    request.options["temperature"] = *value;
  }
  if (const auto value = fields.number("top_p", 0.0, 1.0)) request.options["top_p"] = *value;
  if (const auto value = fields.integer("top_k", 0, kMaxInt)) request.options["top_k"] = *value;
}

const char* stop_reason(const AnswerEnd& end, bool own_stop, bool is_at_limit) {
  if (end.reason == engine::FinishReason::kLength) {
    return is_at_limit ? "max_tokens" : "model_context_window_exceeded";
  }
  return own_stop ? "stop_sequence" : "end_turn";
}

// What of the prompt was found in the cache counts apart, as Anthropic counts it.
Json usage_json(const GenerationSummary& summary) {
  return {{"input_tokens", summary.n_prompt_tokens - summary.n_cached_tokens},
          {"cache_creation_input_tokens", 0},
          {"cache_read_input_tokens", summary.n_cached_tokens},
          {"output_tokens", summary.n_generated_tokens}};
}

class AnthropicWriter final : public AnswerWriter {
 public:
  AnthropicWriter(std::shared_ptr<Exchange> exchange, const AnthropicMessages& parsed)
      : exchange_(std::move(exchange)),
        model_(parsed.request.model),
        stream_(parsed.stream),
        max_tokens_(parsed.max_tokens),
        stop_sequences_(parsed.stop_sequences),
        id_(new_id()) {}

  void begin(const GenerationSummary& so_far) override {
    begun_ = true;
    if (!stream_) return;
    exchange_->begin_stream("text/event-stream; charset=utf-8");
    Json message = head();
    message["content"] = Json::array();
    message["stop_reason"] = nullptr;
    message["stop_sequence"] = nullptr;
    message["usage"] = usage_json(so_far);
    send("message_start", {{"message", std::move(message)}});
  }

  void piece(int, const TextPiece& piece) override {
    // Thoughts come before the answer: a piece that ends them may hold both.
    if (!piece.thinking.empty()) add(Kind::kThinking, piece.thinking);
    if (!piece.content.empty()) add(Kind::kText, piece.content);
  }

  void end_answer(int, const AnswerEnd& end) override { end_ = end; }

  void finish(const GenerationSummary& summary) override {
    // An answer without any text is one empty block.
    if (blocks_.empty()) open(Kind::kText);
    close();
    const bool own_stop = std::find(stop_sequences_.begin(), stop_sequences_.end(),
                                    end_.stop_string) != stop_sequences_.end();
    const Json reason = stop_reason(end_, own_stop, summary.n_generated_tokens >= max_tokens_);
    const Json sequence = own_stop ? Json(end_.stop_string) : Json(nullptr);
    if (stream_) {
      send("message_delta", {{"delta", {{"stop_reason", reason}, {"stop_sequence", sequence}}},
                             {"usage", usage_json(summary)}});
      send("message_stop", Json::object());
      exchange_->end_stream();
      return;
    }
    Json body = head();
    body["content"] = std::move(blocks_);
    body["stop_reason"] = reason;
    body["stop_sequence"] = sequence;
    body["usage"] = usage_json(summary);
    exchange_->respond({.body = dump(body), .headers = {{"request-id", id_}}});
  }

  void fail(const ApiError& error) override {
    if (stream_ && begun_) {
      exchange_->write("event: error\ndata: " + error_json(ErrorForm::kAnthropic, error) + "\n\n");
      exchange_->end_stream();
    } else {
      exchange_->respond(error_response(ErrorForm::kAnthropic, error));
    }
  }

 private:
  enum class Kind { kThinking, kText };

  Json head() const {
    return {{"id", id_}, {"type", "message"}, {"role", "assistant"}, {"model", model_}};
  }

  void add(Kind kind, const std::string& text) {
    if (!open_ || kind_ != kind) {
      close();
      open(kind);
    }
    const char* field = kind == Kind::kText ? "text" : "thinking";
    if (stream_) {
      const char* type = kind == Kind::kText ? "text_delta" : "thinking_delta";
      send_delta({{"type", type}, {field, text}});
    } else {
      Json& block = blocks_.back();
      block[field] = block[field].get_ref<const std::string&>() + text;
    }
  }

  void open(Kind kind) {
    kind_ = kind;
    open_ = true;
    Json block = kind == Kind::kText
                     ? Json{{"type", "text"}, {"text", ""}}
                     : Json{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}};
    if (stream_) {
      send("content_block_start", {{"index", blocks_.size()}, {"content_block", block}});
      if (blocks_.empty()) send("ping", Json::object());
    }
    blocks_.push_back(std::move(block));
  }

  void close() {
    if (!open_) return;
    open_ = false;
    if (!stream_) return;
    // Clients expect a signature; ours vouches for nothing and any is taken back.
    if (kind_ == Kind::kThinking) send_delta({{"type", "signature_delta"}, {"signature", ""}});
    send("content_block_stop", {{"index", blocks_.size() - 1}});
  }

  void send_delta(Json delta) {
    send("content_block_delta", {{"index", blocks_.size() - 1}, {"delta", std::move(delta)}});
  }

  void send(const char* event, const Json& fields) {
    Json data = {{"type", event}};
    data.update(fields);
    exchange_->write(std::string("event: ") + event + "\ndata: " + dump(data) + "\n\n");
  }

  std::shared_ptr<Exchange> exchange_;
  const std::string model_;  // as the client called it
  const bool stream_;
  const int64_t max_tokens_;
  const std::vector<std::string> stop_sequences_;
  const std::string id_;
  bool begun_ = false;
  bool open_ = false;  // the last block
  Kind kind_ = Kind::kText;
  Json blocks_ = Json::array();  // texts of a stream are not kept
  AnswerEnd end_;
};

void count_tokens(TextModels& models, const AnthropicMessages& parsed, Exchange& exchange) {
  const auto model = models.get(parsed.request.model);
  const Prompt prompt = build_prompt(*model, parsed.request, std::numeric_limits<int>::max());
  exchange.respond({.body = dump({{"input_tokens", prompt.tokens.size()}}), .headers = {}});
}

}  // namespace

AnthropicMessages parse_anthropic_messages(std::string_view body, AnthropicCall call) {
  const Json json = parse_body(body);
  const Fields fields(json);
  AnthropicMessages parsed;
  GenerationRequest& request = parsed.request;
  request.model = fields.required_text("model");
  request.overlong = Overlong::kRefuse;
  const auto max_tokens = fields.integer("max_tokens", 1, kMaxInt);
  if (call == AnthropicCall::kMessages) {
    if (!max_tokens) {
      throw ApiError(400, "field \"max_tokens\" is missing: expected a whole number", "max_tokens");
    }
    parsed.max_tokens = *max_tokens;
    request.options["num_predict"] = *max_tokens;
    parsed.stream = fields.flag("stream").value_or(false);
  }
  fields.refuse({"tools", "mcp_servers", "container"});
  if (const Json* choice = fields.object("tool_choice")) {
    if (const std::string type = Fields(*choice, "tool_choice").required_text("type");
        type != "auto" && type != "none") {
      not_supported("tool_choice.type", "\"" + type + "\"");
    }
  }
  parse_sampling(fields, request);
  parse_stop_sequences(fields, parsed);
  parse_thinking(fields, request);
  parse_output(fields, request);
  parse_messages(fields, request);
  take_answer_prefix(request);
  return parsed;
}

void add_anthropic(Router& router, const ApiContext& context, TextModels& models) {
  router.add("POST", "/v1/messages", [&context](HttpRequest request, auto exchange) {
    AnthropicMessages parsed = parse_anthropic_messages(request.body, AnthropicCall::kMessages);
    auto writer = std::make_unique<AnthropicWriter>(exchange, parsed);
    GenerationJob::start(context.jobs, std::move(parsed.request), exchange, std::move(writer));
  });
  router.add("POST", "/v1/messages/count_tokens", [&models](HttpRequest request, auto exchange) {
    try {
      count_tokens(models, parse_anthropic_messages(request.body, AnthropicCall::kCountTokens),
                   *exchange);
    } catch (const std::exception&) {
      throw to_api_error(std::current_exception());
    }
  });
}

}  // namespace dsctl::commands::serve
