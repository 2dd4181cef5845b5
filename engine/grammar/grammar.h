// Grammar: what a generation's text must look like, and the tokens that may come next. Compiled
// once for each specification and shared by the requests that have it.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/grammar/automaton.h"
#include "engine/grammar/program.h"
#include "engine/grammar/token_trie.h"
#include "engine/request.h"

namespace dsctl::engine {

/// Bit t % 32 of word t / 32 is 1 when token t may be chosen. (ceil(vocab_size / 32)) words.
using TokenMask = std::vector<uint32_t>;

/// Thread-safe.
class Grammar {
 public:
  /// Throws Error saying what is wrong with the specification.
  Grammar(const GrammarSpec& spec, std::shared_ptr<const grammar::TokenTrie> trie);

  const grammar::TokenTrie& trie() const { return *trie_; }
  /// The text that `token` adds; empty for tokens that never come in constrained text.
  std::string_view piece(int32_t token) const;
  grammar::State start() const { return start_; }
  /// kDead when `bytes` can't follow.
  grammar::State next(grammar::State state, std::string_view bytes);
  bool is_accepting(grammar::State state) const;
  bool is_final(grammar::State state) const;
  /// Sets `mask` to the tokens that may come next; false when there is none.
  bool fill_mask(grammar::State state, TokenMask& mask);

 private:
  using Mask = std::shared_ptr<const TokenMask>;
  Mask short_tokens(grammar::State state);
  void walk(std::span<const grammar::TokenTrie::Node> nodes, grammar::State state, TokenMask& mask);

  std::shared_ptr<const grammar::TokenTrie> trie_;
  std::vector<std::pair<int32_t, std::string>> control_tokens_;  // that may come, with their texts
  const grammar::Program program_;
  mutable std::mutex mutex_;  // guards all that follows
  grammar::Automaton automaton_;
  grammar::State start_;
  std::unordered_map<grammar::State, Mask> masks_;
  std::deque<grammar::State> mask_order_;  // oldest first
  std::vector<grammar::State> path_;       // of a walk: the state after each byte
};

/// Where one generation is in its grammar. One thread at a time.
class GrammarMatcher {
 public:
  GrammarMatcher(std::shared_ptr<Grammar> grammar, const GrammarSpec& spec,
                 const Tokenizer& tokenizer);

  /// Sets the logits of tokens that may not come next to -inf; `logits` is (vocab_size). False when
  /// none may come.
  bool apply(std::span<float> logits);
  /// Takes a token that was chosen. Throws Error when it was not allowed.
  void accept(int32_t token);
  /// True when the text is complete and nothing may follow.
  bool is_finished() const;
  /// False while the text before the constrained part is being written.
  bool is_active() const { return is_active_; }

 private:
  void watch(int32_t token);
  bool decide_beginning();

  std::shared_ptr<Grammar> grammar_;
  const Tokenizer& tokenizer_;
  std::string start_after_;
  std::string begins_with_;  // with triggers: text that would begin the part before start_after
  std::vector<std::string> triggers_;
  bool is_active_ = true;
  std::string seen_;  // the end of the text before the constrained part
  grammar::State state_;
  TokenMask mask_;
};

/// The grammars in use and those used last. Thread-safe.
class GrammarCache {
 public:
  /// `tokenizer` outlives it and every grammar.
  explicit GrammarCache(const Tokenizer& tokenizer);

  /// Throws Error saying what is wrong with the specification.
  std::shared_ptr<Grammar> get(const GrammarSpec& spec);

 private:
  static constexpr size_t kMaxGrammars = 32;
  std::mutex mutex_;
  const Tokenizer& tokenizer_;
  std::shared_ptr<const grammar::TokenTrie> trie_;                         // made on first use
  std::deque<std::pair<std::string, std::shared_ptr<Grammar>>> grammars_;  // last used first
};

}  // namespace dsctl::engine
