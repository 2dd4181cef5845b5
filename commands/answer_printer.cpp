#include "commands/answer_printer.h"

#include <cstdio>

#include "commands/duration.h"

namespace dsctl::commands {
namespace {

constexpr const char* kGrey = "\x1b[90m";
constexpr const char* kPlain = "\x1b[0m";

std::string rate(int n_tokens, std::chrono::nanoseconds time) {
  char text[64];
  const double seconds = std::chrono::duration<double>(time).count();
  std::snprintf(text, sizeof(text), "%.2f tokens/s", seconds > 0.0 ? n_tokens / seconds : 0.0);
  return text;
}

}  // namespace

AnswerPrinter::AnswerPrinter(Console& console, const AnswerStyle& style)
    : console_(console),
      style_(style),
      wrap_(style.wrap && console.stdout_is_terminal() ? console.width() : 0) {}

void AnswerPrinter::print(const TextPiece& piece) {
  if (!piece.thinking.empty()) {
    thinking_ += piece.thinking;
    if (!style_.hide_thinking) {
      begin_thinking();
      console_.print(wrap_.push(piece.thinking));
    }
  }
  if (piece.content.empty()) return;
  end_thinking();
  content_ += piece.content;
  console_.print(wrap_.push(piece.content));
}

void AnswerPrinter::finish() {
  end_thinking();
  console_.print(wrap_.finish());
  if (!content_.empty() && content_.back() != '\n') console_.print("\n");
}

void AnswerPrinter::begin_thinking() {
  if (in_thinking_) return;
  in_thinking_ = true;
  if (console_.stdout_is_terminal()) console_.print(kGrey);
  console_.print("Thinking...\n");
}

void AnswerPrinter::end_thinking() {
  if (!in_thinking_) return;
  in_thinking_ = false;
  console_.print(wrap_.finish());
  console_.print("\n...done thinking.\n\n");
  if (console_.stdout_is_terminal()) console_.print(kPlain);
  wrap_ = WordWrap(style_.wrap && console_.stdout_is_terminal() ? console_.width() : 0);
}

void print_timings(const ChatSummary& summary, Console& console) {
  const auto line = [&console](const char* key, const std::string& value) {
    char text[128];
    std::snprintf(text, sizeof(text), "%-21s %s", key, value.c_str());
    console.note(text);
  };
  line("total duration:", format_duration(summary.total_time));
  line("load duration:", format_duration(summary.load_time));
  line("prompt eval count:", std::to_string(summary.n_prompt_tokens) + " token(s)");
  line("prompt eval duration:", format_duration(summary.prefill_time));
  line("prompt eval rate:", rate(summary.n_prompt_tokens, summary.prefill_time));
  line("eval count:", std::to_string(summary.n_generated_tokens) + " token(s)");
  line("eval duration:", format_duration(summary.decode_time));
  line("eval rate:", rate(summary.n_generated_tokens, summary.decode_time));
}

}  // namespace dsctl::commands
