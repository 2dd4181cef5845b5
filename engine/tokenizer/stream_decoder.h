// StreamDecoder: turns tokens into text as they come, never half a code point, and stops before a
// stop string. The one place where `run` and `serve` meet the token stream.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"

namespace dsctl::engine {

class StreamDecoder {
 public:
  /// `tokenizer` must outlive the decoder. Text that could be the beginning of a stop string is
  /// held back until it is known not to be one; empty stop strings are ignored. `previous_token` is
  /// the last token of the prompt, -1 when there is none: after ordinary text a leading space is
  /// the model's own, at a beginning or after a control token it is the one that the vocabulary
  /// adds, and is left out.
  StreamDecoder(const Tokenizer& tokenizer, std::vector<std::string> stop_strings,
                SpecialTokens special = SpecialTokens::kAsText, int32_t previous_token = -1);

  /// Takes the next token and returns the text that is now certain (often empty, never ending
  /// inside a code point). After a stop string was found nothing more is returned.
  std::string push(int32_t token);

  /// The end of the stream: what was held back, incomplete bytes as U+FFFD.
  std::string finish();

  /// True once a stop string has been completed; the text before it has been returned.
  bool stopped() const { return stopped_; }
  /// The stop string that was completed; empty before.
  const std::string& stop_string() const { return stop_string_; }

 private:
  std::string release(std::string text);

  const Tokenizer& tokenizer_;
  std::vector<std::string> stop_strings_;
  SpecialTokens special_;
  std::string pending_bytes_;  // an incomplete code point
  std::string held_;           // complete text that may begin a stop string
  bool stopped_ = false;
  std::string stop_string_;
  bool after_special_;  // the next piece begins a text
};

}  // namespace dsctl::engine
