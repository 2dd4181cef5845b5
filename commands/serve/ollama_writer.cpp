#include "commands/serve/ollama_writer.h"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "commands/model_info.h"
#include "commands/serve/json_fields.h"
#include "commands/serve/tool_fields.h"

namespace dsctl::commands::serve {
namespace {

using std::chrono::system_clock;

Json bytes_json(const std::string& text) {
  Json bytes = Json::array();
  for (const char c : text)
    bytes.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return bytes;
}

Json token_json(const TokenText& token) {
  return {{"token", token.text}, {"logprob", token.logprob}, {"bytes", bytes_json(token.text)}};
}

Json logprobs_json(const std::vector<TokenLogprobs>& logprobs) {
  Json list = Json::array();
  for (const TokenLogprobs& entry : logprobs) {
    Json item = token_json(entry.chosen);
    if (!entry.top.empty()) {
      Json top = Json::array();
      for (const TokenText& token : entry.top)
        top.push_back(token_json(token));
      item["top_logprobs"] = std::move(top);
    }
    list.push_back(std::move(item));
  }
  return list;
}

const char* done_reason(engine::FinishReason reason) {
  return reason == engine::FinishReason::kLength ? "length" : "stop";
}

// Ollama leaves out what is zero.
void add_count(Json& object, const char* name, int64_t value) {
  if (value != 0) object[name] = value;
}

class OllamaWriter final : public AnswerWriter {
 public:
  OllamaWriter(std::shared_ptr<Exchange> exchange, const OllamaGenerate& parsed)
      : exchange_(std::move(exchange)),
        model_(parsed.request.model),
        chat_(parsed.chat),
        stream_(parsed.stream),
        with_context_(!parsed.chat && parsed.request.form != PromptForm::kRaw) {}

  void begin(const GenerationSummary&) override {
    begun_ = true;
    if (stream_) exchange_->begin_stream("application/x-ndjson");
  }

  void piece(int, const TextPiece& part) override {
    // Calls are shown when they are whole.
    TextPiece piece = part;
    Json calls = Json::array();
    for (const CollectedCall& call : collector_.add(part, piece.content))
      calls.push_back(call_json(call));
    piece.tool_calls.clear();
    if (!stream_) {
      whole_.content += piece.content;
      whole_.thinking += piece.thinking;
      whole_.logprobs.insert(whole_.logprobs.end(), piece.logprobs.begin(), piece.logprobs.end());
      calls_.insert(calls_.end(), calls.begin(), calls.end());
      return;
    }
    if (piece.empty() && calls.empty()) return;
    Json line = head(piece, calls);
    line["done"] = false;
    if (!piece.logprobs.empty()) line["logprobs"] = logprobs_json(piece.logprobs);
    exchange_->write(dump(line) + "\n");
  }

  void end_answer(int, const AnswerEnd& end) override { end_ = end; }

  void finish(const GenerationSummary& summary) override {
    Json line = head(whole_, calls_);
    line["done"] = true;
    line["done_reason"] = done_reason(end_.reason);
    if (with_context_) line["context"] = summary.context;
    if (summary.n_dropped_messages > 0) line["truncated_messages"] = summary.n_dropped_messages;
    add_count(line, "total_duration", summary.total_time.count());
    add_count(line, "load_duration", summary.load_time.count());
    add_count(line, "prompt_eval_count", summary.n_prompt_tokens);
    add_count(line, "prompt_eval_duration", summary.prefill_time.count());
    add_count(line, "eval_count", summary.n_generated_tokens);
    add_count(line, "eval_duration", summary.decode_time.count());
    if (!whole_.logprobs.empty()) line["logprobs"] = logprobs_json(whole_.logprobs);
    if (stream_) {
      exchange_->write(dump(line) + "\n");
      exchange_->end_stream();
    } else {
      exchange_->respond({.body = dump(line), .headers = {}});
    }
  }

  void fail(const ApiError& error) override {
    if (stream_ && begun_) {
      exchange_->write(error_json(ErrorForm::kOllama, error) + "\n");
      exchange_->end_stream();
    } else {
      exchange_->respond(error_response(ErrorForm::kOllama, error));
    }
  }

 private:
  Json call_json(const CollectedCall& call) {
    return {{"id", new_tool_call_id()},
            {"function",
             {{"index", n_calls_++},
              {"name", call.name},
              {"arguments", Json::parse(call.arguments, nullptr, /*allow_exceptions=*/false)}}}};
  }

  Json head(const TextPiece& piece, const Json& calls) const {
    Json line = {{"model", model_}, {"created_at", format_time(system_clock::now())}};
    if (chat_) {
      Json message = {{"role", "assistant"}, {"content", piece.content}};
      if (!piece.thinking.empty()) message["thinking"] = piece.thinking;
      if (!calls.empty()) message["tool_calls"] = calls;
      line["message"] = std::move(message);
    } else {
      line["response"] = piece.content;
      if (!piece.thinking.empty()) line["thinking"] = piece.thinking;
    }
    return line;
  }

  std::shared_ptr<Exchange> exchange_;
  const std::string model_;  // as the client called it
  const bool chat_;
  const bool stream_;
  const bool with_context_;
  bool begun_ = false;
  TextPiece whole_;
  CallCollector collector_;
  Json calls_ = Json::array();
  int n_calls_ = 0;
  AnswerEnd end_;
};

}  // namespace

std::unique_ptr<AnswerWriter> make_ollama_writer(std::shared_ptr<Exchange> exchange,
                                                 const OllamaGenerate& parsed) {
  return std::make_unique<OllamaWriter>(std::move(exchange), parsed);
}

}  // namespace dsctl::commands::serve
