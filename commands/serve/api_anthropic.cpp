#include "commands/serve/api_anthropic.h"

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <limits>
#include <random>
#include <utility>

#include "commands/serve/json_fields.h"
#include "commands/serve/tool_fields.h"

namespace dsctl::commands::serve {
namespace {

std::string new_id() {
  static std::atomic<uint64_t> counter{std::random_device{}()};
  std::random_device random;
  char text[64];
  std::snprintf(text, sizeof(text), "msg_%08x%08x%08llx", random(), random(),
                static_cast<unsigned long long>(counter++ & 0xffffffff));
  return text;
}

const char* stop_reason(const AnswerEnd& end, bool own_stop, bool is_at_limit) {
  if (end.reason == engine::FinishReason::kLength) {
    return is_at_limit ? "max_tokens" : "model_context_window_exceeded";
  }
  if (end.n_tool_calls > 0) return "tool_use";
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
    // A call is told when it is whole: until then it may turn out to be none, and a block can't be
    // taken back.
    std::string no_call;
    for (const CollectedCall& call : collector_.add(piece, no_call))
      add_call(call);
    if (!no_call.empty()) add(Kind::kText, no_call);
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
  enum class Kind { kThinking, kText, kCall };

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

  void add_call(const CollectedCall& call) {
    close();
    Json block = {{"type", "tool_use"},
                  {"id", "toolu_" + new_tool_call_id().substr(5)},
                  {"name", call.name},
                  {"input", Json::object()}};
    if (!stream_) block["input"] = Json::parse(call.arguments, nullptr, false);
    open(Kind::kCall, std::move(block));
    if (stream_) send_delta({{"type", "input_json_delta"}, {"partial_json", call.arguments}});
    close();
  }

  void open(Kind kind) {
    open(kind, kind == Kind::kText
                   ? Json{{"type", "text"}, {"text", ""}}
                   : Json{{"type", "thinking"}, {"thinking", ""}, {"signature", ""}});
  }

  void open(Kind kind, Json block) {
    kind_ = kind;
    open_ = true;
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
  CallCollector collector_;
  AnswerEnd end_;
};

void count_tokens(TextModels& models, const AnthropicMessages& parsed, Exchange& exchange) {
  const auto model = models.get(parsed.request.model);
  const Prompt prompt = build_prompt(*model, parsed.request, std::numeric_limits<int>::max());
  exchange.respond({.body = dump({{"input_tokens", prompt.tokens.size()}}), .headers = {}});
}

}  // namespace

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
