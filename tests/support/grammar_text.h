// Texts and grammars for grammar tests: whole texts against a grammar, random texts out of one.
#pragma once

#include <optional>
#include <random>
#include <string>
#include <string_view>

#include "engine/grammar/automaton.h"
#include "engine/grammar/program.h"
#include "engine/grammar/syntax.h"

namespace dsctl::tests {

/// A grammar ready to read texts.
class TextMatcher {
 public:
  explicit TextMatcher(const engine::grammar::Syntax& syntax);

  bool accepts(std::string_view text);
  /// True when `text` is the beginning of some text... or at least not ruled out yet.
  bool is_alive(std::string_view text);
  /// A text of the grammar by a random walk, or nothing after `max_bytes`.
  std::optional<std::string> random_text(std::mt19937& random, size_t max_bytes = 2000);

  engine::grammar::Automaton& automaton() { return automaton_; }

 private:
  engine::grammar::Program program_;
  engine::grammar::Automaton automaton_;
};

}  // namespace dsctl::tests
