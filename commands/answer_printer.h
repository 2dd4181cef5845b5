// AnswerPrinter: shows one answer as it comes: thoughts in a block of their own, words wrapped at
// the terminal's width, and Ollama's timing block.
#pragma once

#include <string>

#include "commands/chat_backend.h"
#include "commands/console.h"
#include "commands/word_wrap.h"

namespace dsctl::commands {

struct AnswerStyle {
  bool hide_thinking = false;
  bool wrap = true;  // only on a terminal
};

class AnswerPrinter {
 public:
  AnswerPrinter(Console& console, const AnswerStyle& style);

  void print(const TextPiece& piece);
  /// Ends the answer with a line break; an interrupted one too.
  void finish();

  const std::string& content() const { return content_; }
  const std::string& thinking() const { return thinking_; }

 private:
  void begin_thinking();
  void end_thinking();

  Console& console_;
  const AnswerStyle style_;
  WordWrap wrap_;
  bool in_thinking_ = false;
  std::string content_;
  std::string thinking_;
};

/// Ollama's `--verbose` block, to standard error.
void print_timings(const ChatSummary& summary, Console& console);

}  // namespace dsctl::commands
