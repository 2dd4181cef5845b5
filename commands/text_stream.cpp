#include "commands/text_stream.h"

#include <iterator>
#include <utility>

namespace dsctl::commands {
namespace {

using engine::SpecialTokens;

// Control tokens are not text, except where the model writes its thinking tags or the markers of
// its tool calls with them.
SpecialTokens special_tokens(const engine::Tokenizer& tokenizer,
                             const std::optional<ThinkingFormat>& thinking,
                             const std::optional<ToolCallReading>& tools) {
  std::vector<std::string> markers;
  if (thinking) markers = {thinking->open_tag, thinking->close_tag};
  if (tools) {
    const std::vector<std::string> more = tools->format.markers();
    markers.insert(markers.end(), more.begin(), more.end());
  }
  for (const std::string& marker : markers) {
    const int32_t token = tokenizer.find(marker);
    if (token >= 0 && tokenizer.type(token) == engine::TokenType::kControl) {
      return SpecialTokens::kParse;
    }
  }
  return SpecialTokens::kAsText;
}

}  // namespace

std::vector<CollectedCall> CallCollector::add(const TextPiece& piece, std::string& content) {
  using State = templates::ToolCallPiece::State;
  std::vector<CollectedCall> complete;
  for (const templates::ToolCallPiece& part : piece.tool_calls) {
    if (!part.name.empty()) open_ = {.index = part.index, .name = part.name, .arguments = {}};
    open_.arguments += part.arguments;
    if (part.state == State::kDone) complete.push_back(std::move(open_));
    if (part.state == State::kBroken) content += part.raw;
  }
  return complete;
}

TextStream::TextStream(const engine::Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                       const std::optional<ThinkingFormat>& thinking, LogprobsWanted logprobs,
                       const std::optional<ToolCallReading>& tools)
    : tokenizer_(tokenizer),
      special_(special_tokens(tokenizer, thinking, tools)),
      decoder_(tokenizer, std::move(stop_strings), special_),
      wants_logprobs_(logprobs == LogprobsWanted::kYes) {
  if (tools) tools_.emplace(tools->format, tools->names, tools->max_calls);
  if (!thinking) return;
  using Start = templates::ThinkingParser::Start;
  thinking_.emplace(thinking->open_tag, thinking->close_tag,
                    thinking->starts_inside ? Start::kInside : Start::kBeforeTag);
}

TextPieces TextStream::push(const engine::Event& event) {
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

TextPieces TextStream::finish() {
  TextPieces pieces = split(decoder_.finish());
  const auto append = [&pieces](TextPieces more) {
    std::move(more.begin(), more.end(), std::back_inserter(pieces));
  };
  if (thinking_) append(read_calls(thinking_->finish()));
  if (tools_) {
    for (templates::ToolCallParser::Piece& rest : tools_->finish()) {
      pieces.push_back({.content = std::move(rest.content),
                        .thinking = {},
                        .logprobs = {},
                        .tool_calls = std::move(rest.calls)});
    }
  }
  if (!pending_logprobs_.empty()) {
    if (pieces.empty()) pieces.emplace_back();
    std::move(pending_logprobs_.begin(), pending_logprobs_.end(),
              std::back_inserter(pieces.back().logprobs));
    pending_logprobs_.clear();
  }
  return pieces;
}

TextPieces TextStream::split(const std::string& text) {
  if (thinking_) return read_calls(thinking_->feed(text));
  templates::ThinkingParser::Piece parts;
  parts.content = text;
  return read_calls(std::move(parts));
}

/// Looks for tool calls in the content.
TextPieces TextStream::read_calls(templates::ThinkingParser::Piece parts) {
  TextPieces pieces;
  if (!parts.thinking.empty()) pieces.emplace_back().thinking = std::move(parts.thinking);
  if (!tools_) {
    if (!parts.content.empty()) {
      if (pieces.empty()) pieces.emplace_back();
      pieces.back().content = std::move(parts.content);
    }
  } else {
    for (templates::ToolCallParser::Piece& piece : tools_->feed(parts.content)) {
      // Thoughts come before the answer: a piece that ends them may hold both.
      if (pieces.empty() || !pieces.back().tool_calls.empty()) pieces.emplace_back();
      TextPiece& last = pieces.back();
      last.content += piece.content;
      last.tool_calls = std::move(piece.calls);
    }
  }
  if (!pieces.empty()) pieces.back().logprobs = std::exchange(pending_logprobs_, {});
  return pieces;
}

TokenText TextStream::describe(int32_t token, float logprob) const {
  return {.token = token,
          .text = std::string(tokenizer_.piece(token, SpecialTokens::kParse)),
          .logprob = logprob};
}

}  // namespace dsctl::commands
