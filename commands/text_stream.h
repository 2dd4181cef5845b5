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

/// What became certain with a token. Log-probabilities come with the text that their tokens end in.
struct TextPiece {
  std::string content;
  std::string thinking;
  std::vector<TokenLogprobs> logprobs;

  bool empty() const { return content.empty() && thinking.empty() && logprobs.empty(); }
};

/// How thoughts are told from the answer; without it all text is content.
struct ThinkingFormat {
  std::string open_tag;
  std::string close_tag;
  bool starts_inside = false;  // the prompt ended with the opening tag
};

enum class LogprobsWanted { kNo, kYes };

class TextStream {
 public:
  /// `tokenizer` must outlive the stream.
  TextStream(const engine::Tokenizer& tokenizer, std::vector<std::string> stop_strings,
             const std::optional<ThinkingFormat>& thinking, LogprobsWanted logprobs);

  /// Takes a token event.
  TextPiece push(const engine::Event& event);
  /// The end: what was held back.
  TextPiece finish();
  /// True once a stop string was found: the rest of the generation is of no interest.
  bool stopped() const { return decoder_.stopped(); }
  /// The stop string that was found; empty before.
  const std::string& stop_string() const { return decoder_.stop_string(); }
  /// Tokens taken, up to and with the one that completed a stop string.
  const std::vector<int32_t>& tokens() const { return tokens_; }

 private:
  TextPiece split(const std::string& text);
  TokenText describe(int32_t token, float logprob) const;

  const engine::Tokenizer& tokenizer_;
  engine::SpecialTokens special_;
  engine::StreamDecoder decoder_;
  std::optional<templates::ThinkingParser> thinking_;
  std::vector<TokenLogprobs> pending_logprobs_;
  std::vector<int32_t> tokens_;
  bool wants_logprobs_ = false;
};

}  // namespace dsctl::commands
