#include "tests/support/grammar_text.h"

#include <vector>

namespace dsctl::tests {

using engine::grammar::kDead;
using engine::grammar::State;

TextMatcher::TextMatcher(const engine::grammar::Syntax& syntax)
    : program_(engine::grammar::Program::compile(syntax)), automaton_(program_) {}

bool TextMatcher::accepts(std::string_view text) {
  const State state = automaton_.next(automaton_.start(), text);
  return state != kDead && automaton_.is_accepting(state);
}

bool TextMatcher::is_alive(std::string_view text) {
  return automaton_.next(automaton_.start(), text) != kDead;
}

std::optional<std::string> TextMatcher::random_text(std::mt19937& random, size_t max_bytes) {
  std::string text;
  State state = automaton_.start();
  while (text.size() < max_bytes) {
    const bool may_end = automaton_.is_accepting(state);
    if (may_end && (automaton_.is_final(state) || random() % 4 == 0)) return text;
    std::vector<uint8_t> bytes;
    for (int byte = 0; byte < 256; ++byte) {
      if (automaton_.next(state, static_cast<uint8_t>(byte)) != kDead) {
        bytes.push_back(static_cast<uint8_t>(byte));
      }
    }
    if (bytes.empty()) return may_end ? std::optional(text) : std::nullopt;
    const uint8_t byte = bytes[random() % bytes.size()];
    text += static_cast<char>(byte);
    state = automaton_.next(state, byte);
  }
  return std::nullopt;
}

}  // namespace dsctl::tests
