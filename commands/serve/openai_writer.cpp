#include "commands/serve/openai_writer.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <random>
#include <utility>
#include <vector>

#include "commands/serve/json_fields.h"
#include "commands/serve/tool_fields.h"

namespace dsctl::commands::serve {
namespace {

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

const char* finish_reason(const AnswerEnd& end) {
  if (end.reason == engine::FinishReason::kLength) return "length";
  return end.n_tool_calls > 0 ? "tool_calls" : "stop";
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
        include_reasoning_(parsed.include_reasoning),
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

  void piece(int index, const TextPiece& whole) override {
    Answer& answer = answers_[static_cast<size_t>(index)];
    TextPiece piece = whole;
    if (!include_reasoning_) piece.thinking.clear();
    if (!stream_) {
      collect(piece, answer);
      return;
    }
    if (piece.empty()) return;
    Json choice = {{"index", index}};
    if (chat_) {
      choice["delta"] = delta_json(piece);
    } else {
      choice["text"] = piece.content;
    }
    choice["logprobs"] = logprobs_json(piece.logprobs, answer);
    choice["finish_reason"] = nullptr;
    send_choice(std::move(choice));
  }

  void end_answer(int index, const AnswerEnd& end) override {
    Answer& answer = answers_[static_cast<size_t>(index)];
    answer.end = end;
    if (!stream_) return;
    Json choice = {{"index", index}};
    if (chat_) {
      choice["delta"] = Json::object();
    } else {
      choice["text"] = "";
    }
    choice["logprobs"] = nullptr;
    choice["finish_reason"] = finish_reason(end);
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
    AnswerEnd end;
    CallCollector collector;
    Json tool_calls = Json::array();
  };

  static void collect(const TextPiece& piece, Answer& answer) {
    answer.text.content += piece.content;
    answer.text.thinking += piece.thinking;
    answer.text.logprobs.insert(answer.text.logprobs.end(), piece.logprobs.begin(),
                                piece.logprobs.end());
    for (CollectedCall& call : answer.collector.add(piece, answer.text.content)) {
      answer.tool_calls.push_back(
          {{"id", new_tool_call_id()},
           {"type", "function"},
           {"function",
            {{"name", std::move(call.name)}, {"arguments", std::move(call.arguments)}}}});
    }
  }

  static Json delta_json(const TextPiece& piece) {
    Json delta = Json::object();
    // Thoughts come before the answer: a piece that ends them may hold both.
    if (!piece.thinking.empty()) {
      delta["reasoning"] = piece.thinking;
      delta["reasoning_content"] = piece.thinking;
    }
    if (!piece.content.empty() || (piece.thinking.empty() && piece.tool_calls.empty())) {
      delta["content"] = piece.content;
    }
    Json calls = Json::array();
    for (const templates::ToolCallPiece& part : piece.tool_calls)
      add_call_delta(part, calls);
    if (!calls.empty()) delta["tool_calls"] = std::move(calls);
    return delta;
  }

  /// The name comes first and alone, then the arguments as they are written.
  static void add_call_delta(const templates::ToolCallPiece& part, Json& calls) {
    if (!part.name.empty()) {
      calls.push_back({{"index", part.index},
                       {"id", new_tool_call_id()},
                       {"type", "function"},
                       {"function", {{"name", part.name}, {"arguments", ""}}}});
    }
    if (!part.arguments.empty()) {
      calls.push_back({{"index", part.index}, {"function", {{"arguments", part.arguments}}}});
    }
  }

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
      if (!answer.tool_calls.empty()) {
        if (answer.text.content.empty()) message["content"] = nullptr;
        message["tool_calls"] = answer.tool_calls;
      }
      choice["message"] = std::move(message);
    } else {
      choice["text"] = answer.text.content;
    }
    choice["logprobs"] = logprobs_json(answer.text.logprobs, answer);
    choice["finish_reason"] = finish_reason(answer.end);
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
  const bool include_reasoning_;
  const bool logprobs_;
  const std::string id_;
  const int64_t created_;
  bool begun_ = false;
  std::vector<Answer> answers_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_openai_writer(std::shared_ptr<Exchange> exchange,
                                                 const OpenAiGenerate& parsed) {
  return std::make_unique<OpenAiWriter>(std::move(exchange), parsed);
}

}  // namespace dsctl::commands::serve
