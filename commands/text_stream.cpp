#include "commands/text_stream.h"

#include <utility>

namespace dsctl::commands {
namespace {

using engine::SpecialTokens;

// Control tokens are not text, except where the model writes its thinking tags with them.
SpecialTokens special_tokens(const engine::Tokenizer& tokenizer,
                             const std::optional<ThinkingFormat>& thinking) {
  if (!thinking) return SpecialTokens::kAsText;
  for (const std::string* tag : {&thinking->open_tag, &thinking->close_tag}) {
    const int32_t token = tokenizer.find(*tag);
    if (token >= 0 && tokenizer.type(token) == engine::TokenType::kControl) {
      return SpecialTokens::kParse;
    }
  }
  return SpecialTokens::kAsText;
}

}  // namespace

TextStream::TextStream(const engine::Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                       const std::optional<ThinkingFormat>& thinking, LogprobsWanted logprobs)
    : tokenizer_(tokenizer),
      special_(special_tokens(tokenizer, thinking)),
      decoder_(tokenizer, std::move(stop_strings), special_),
      wants_logprobs_(logprobs == LogprobsWanted::kYes) {
  if (!thinking) return;
  using Start = templates::ThinkingParser::Start;
  thinking_.emplace(thinking->open_tag, thinking->close_tag,
                    thinking->starts_inside ? Start::kInside : Start::kBeforeTag);
}

TextPiece TextStream::push(const engine::Event& event) {
  if (stopped()) return {};
  tokens_.push_back(event.token);
  if (wants_logprobs_) {
    TokenLogprobs logprobs{.chosen = describe(event.token, event.logprob), .top = {}};
    for (const engine::TokenLogprob& top : event.top_logprobs) {
      logprobs.top.push_back(describe(top.token, top.logprob));
    }
    pending_logprobs_.push_back(std::move(logprobs));
  }
  return split(decoder_.push(event.token));
}

TextPiece TextStream::finish() {
  TextPiece piece = split(decoder_.finish());
  if (thinking_) {
    templates::ThinkingParser::Piece rest = thinking_->finish();
    piece.thinking += rest.thinking;
    piece.content += rest.content;
  }
  for (TokenLogprobs& logprobs : pending_logprobs_)
    piece.logprobs.push_back(std::move(logprobs));
  pending_logprobs_.clear();
  return piece;
}

TextPiece TextStream::split(const std::string& text) {
  TextPiece piece;
  if (thinking_) {
    templates::ThinkingParser::Piece parts = thinking_->feed(text);
    piece.thinking = std::move(parts.thinking);
    piece.content = std::move(parts.content);
  } else {
    piece.content = text;
  }
  if (!piece.empty()) piece.logprobs = std::exchange(pending_logprobs_, {});
  return piece;
}

TokenText TextStream::describe(int32_t token, float logprob) const {
  return {.token = token,
          .text = std::string(tokenizer_.piece(token, SpecialTokens::kParse)),
          .logprob = logprob};
}

}  // namespace dsctl::commands
