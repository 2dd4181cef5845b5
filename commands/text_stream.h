// TextStream: one generation's tokens to what a reader sees: text never cut inside a character,
// thoughts apart from the answer, nothing of a stop string, log-probabilities with their text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/request.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/tokenizer.h"
#include "templates/thinking_parser.h"
#include "templates/tool_call_parser.h"

namespace dsctl::commands {

struct TokenText {
  int32_t token = 0;
  std::string text;  // the token's bytes, possibly not whole characters
  float logprob = 0.0f;
};

struct TokenLogprobs {
  TokenText chosen;
  std::vector<TokenText> top;  // best first
};

/// What became certain with a token: thoughts, then content, then parts of tool calls. Log-
/// probabilities come with the text that their tokens end in.
struct TextPiece {
  std::string content;
  std::string thinking;
  std::vector<TokenLogprobs> logprobs;
  std::vector<templates::ToolCallPiece> tool_calls;

  bool empty() const {
    return content.empty() && thinking.empty() && logprobs.empty() && tool_calls.empty();
  }
};
using TextPieces = std::vector<TextPiece>;

/// How thoughts are told from the answer; without it all text is content.
struct ThinkingFormat {
  std::string open_tag;
  std::string close_tag;
  bool starts_inside = false;  // the prompt ended with the opening tag
};

/// How tool calls are told from content; without it a call is content.
struct ToolCallReading {
  templates::ToolFormat format;
  std::vector<std::string> names;  // of the tools that were offered
  int max_calls = 0;
};

/// A tool call as far as it was written; pieces of an answer put together.
struct CollectedCall {
  int index = 0;
  std::string name;
  std::string arguments;  // a JSON object's text
};

/// Puts a piece of an answer to what there is of it, for clients that get whole calls. A call that
/// turned out to be none becomes content.
class CallCollector {
 public:
  /// Returns the calls that are complete with this piece; `content` gets what is none.
  std::vector<CollectedCall> add(const TextPiece& piece, std::string& content);

 private:
  CollectedCall open_;
};

enum class LogprobsWanted { kNo, kYes };

class TextStream {
 public:
  /// `tokenizer` must outlive the stream.
  TextStream(const engine::Tokenizer& tokenizer, std::vector<std::string> stop_strings,
             const std::optional<ThinkingFormat>& thinking, LogprobsWanted logprobs,
             const std::optional<ToolCallReading>& tools = std::nullopt);

  /// Takes a token event; the pieces follow each other.
  TextPieces push(const engine::Event& event);
  /// The end: what was held back.
  TextPieces finish();
  /// True once a stop string was found or the last tool call wanted is complete: the rest of the
  /// generation is of no interest.
  bool stopped() const { return decoder_.stopped() || (tools_ && tools_->is_over()); }
  /// The stop string that was found; empty before.
  const std::string& stop_string() const { return decoder_.stop_string(); }
  /// Complete tool calls so far.
  int n_tool_calls() const { return tools_ ? tools_->n_calls() : 0; }
  /// Tokens taken, up to and with the one that completed a stop string.
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  TextPieces split(const std::string& text);
  TextPieces read_calls(templates::ThinkingParser::Piece parts);
  TokenText describe(int32_t token, float logprob) const;

  const engine::Tokenizer& tokenizer_;
  engine::SpecialTokens special_;
  engine::StreamDecoder decoder_;
  std::optional<templates::ThinkingParser> thinking_;
  std::optional<templates::ToolCallParser> tools_;
  std::vector<TokenLogprobs> pending_logprobs_;
  std::vector<int32_t> tokens_;
  bool wants_logprobs_ = false;
};

}  // namespace dsctl::commands
