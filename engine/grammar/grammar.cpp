#include "engine/grammar/grammar.h"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/error.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_schema.h"
#include "engine/grammar/regex_syntax.h"
#include "engine/grammar/tagged.h"
#include "engine/tokenizer/tokenizer.h"

namespace dsctl::engine {
namespace {

using grammar::Expr;
using grammar::kDead;
using grammar::Program;
using grammar::State;
using grammar::Syntax;
using grammar::TokenTrie;

constexpr size_t kMaxMasks = 512;  // of one grammar: 8 MiB for 128k tokens
constexpr size_t kMaxChoices = 10'000;
constexpr int kMaxLeadingSpaces = 20;
constexpr float kNegInf = -std::numeric_limits<float>::infinity();

Syntax single_rule(Expr body) {
  Syntax syntax;
  syntax.rules.push_back({.name = "root", .body = std::move(body)});
  return syntax;
}

Syntax choices_syntax(const std::string& source) {
  const auto list = nlohmann::json::parse(source, nullptr, /*allow_exceptions=*/false);
  if (!list.is_array() || list.empty() || list.size() > kMaxChoices) {
    throw Error("choices: expected a list of 1 to " + std::to_string(kMaxChoices) + " strings");
  }
  std::vector<Expr> ways;
  for (const nlohmann::json& item : list) {
    if (!item.is_string() || item.get_ref<const std::string&>().empty()) {
      throw Error("choices: found " + item.dump(-1, ' ', true).substr(0, 60) +
                  ", expected strings that are not empty");
    }
    ways.push_back(grammar::literal(std::string_view(item.get_ref<const std::string&>())));
  }
  return single_rule(grammar::choice(std::move(ways)));
}

Syntax syntax_of(const GrammarSpec& spec) {
  switch (spec.kind) {
    case GrammarSpec::Kind::kGbnf:
      return grammar::parse_gbnf(spec.source);
    case GrammarSpec::Kind::kJsonSchema:
      return grammar::parse_json_schema(spec.source);
    case GrammarSpec::Kind::kJsonObject:
      return grammar::json_object_syntax();
    case GrammarSpec::Kind::kRegex:
      return single_rule(grammar::parse_regex(spec.source, grammar::chars, /*is_search=*/false));
    case GrammarSpec::Kind::kChoice:
      return choices_syntax(spec.source);
    case GrammarSpec::Kind::kTagged:
      return grammar::parse_tagged(spec.source);
  }
  throw Error("grammar: unknown kind");
}

int add_rule(Syntax& syntax, Expr body) {
  syntax.rules.push_back({.name = "text", .body = std::move(body)});
  return static_cast<int>(syntax.rules.size()) - 1;
}

/// The rule of any text up to and with the first `end`, then `after`: one rule for each number of
/// characters of `end` that the text ends in.
int add_text_until(Syntax& syntax, const std::u32string& end, const Expr& after) {
  const auto first = static_cast<int>(syntax.rules.size());
  for (size_t i = 0; i < end.size(); ++i)
    add_rule(syntax, {});
  // How many characters of `end` a text ends in that ended in `n` of them, after `c`.
  const auto matched = [&](size_t n, char32_t c) {
    std::u32string text = end.substr(0, n) + c;
    while (!end.starts_with(text))
      text.erase(0, 1);
    return text.size();
  };
  for (size_t n = 0; n < end.size(); ++n) {
    grammar::CharSet used;
    std::vector<Expr> ways;
    for (const char32_t c : std::set<char32_t>(end.begin(), end.end())) {
      const size_t next = matched(n, c);
      used.push_back({c, c});
      ways.push_back(grammar::sequence(
          {grammar::chars({{c, c}}),
           next == end.size() ? after : grammar::rule(first + static_cast<int>(next))}));
    }
    ways.push_back(grammar::sequence(
        {grammar::chars(grammar::complement(grammar::chars(used).chars)), grammar::rule(first)}));
    syntax.rules[static_cast<size_t>(first) + n].body = grammar::choice(std::move(ways));
  }
  return first;
}

Program compile(const GrammarSpec& spec) {
  Syntax syntax = syntax_of(spec);
  if (!spec.start_after.empty()) {
    // A model puts line breaks between its thinking and its answer.
    const Expr space = grammar::repeat(grammar::chars({{'\t', '\n'}, {'\r', '\r'}, {' ', ' '}}), 0,
                                       kMaxLeadingSpaces);
    Expr answer = grammar::sequence({space, grammar::rule(syntax.root_idx)});
    // With triggers the matcher itself finds out what the text begins with.
    if (!spec.may_begin_with.empty() && spec.triggers.empty()) {
      const int thinking = add_text_until(syntax, grammar::decode_utf8(spec.start_after), answer);
      answer = grammar::choice(
          {grammar::rule(syntax.root_idx),
           grammar::sequence({space, grammar::literal(std::string_view(spec.may_begin_with)),
                              grammar::rule(thinking)})});
    }
    syntax.root_idx = add_rule(syntax, std::move(answer));
  }
  return Program::compile(syntax);
}

void set_bit(TokenMask& mask, int32_t token) {
  mask[static_cast<size_t>(token) / 32] |= 1u << (static_cast<uint32_t>(token) % 32);
}

}  // namespace

Grammar::Grammar(const GrammarSpec& spec, std::shared_ptr<const TokenTrie> trie)
    : trie_(std::move(trie)),
      program_(compile(spec)),
      automaton_(program_),
      start_(automaton_.start()),
      path_(static_cast<size_t>(trie_->max_piece_bytes()) + 1) {
  for (const std::string& text : spec.control_tokens) {
    const int32_t token = trie_->control_token(text);
    if (token >= 0) control_tokens_.emplace_back(token, text);
  }
}

std::string_view Grammar::piece(int32_t token) const {
  for (const auto& [control, text] : control_tokens_) {
    if (control == token) return text;
  }
  return trie_->piece(token);
}

State Grammar::next(State state, std::string_view bytes) {
  const std::lock_guard lock(mutex_);
  return automaton_.next(state, bytes);
}

bool Grammar::is_accepting(State state) const {
  const std::lock_guard lock(mutex_);
  return automaton_.is_accepting(state);
}

bool Grammar::is_final(State state) const {
  const std::lock_guard lock(mutex_);
  return automaton_.is_final(state);
}

bool Grammar::fill_mask(State state, TokenMask& mask) {
  const std::lock_guard lock(mutex_);
  mask = *short_tokens(automaton_.equivalent(state, TokenTrie::kMaxDepth));
  walk(trie_->long_nodes(), state, mask);
  for (const auto& [token, text] : control_tokens_) {
    if (automaton_.next(state, text) != kDead) set_bit(mask, token);
  }
  if (automaton_.is_accepting(state)) {
    for (const int32_t token : trie_->eog_tokens())
      set_bit(mask, token);
  }
  return std::any_of(mask.begin(), mask.end(), [](uint32_t word) { return word != 0; });
}

Grammar::Mask Grammar::short_tokens(State state) {
  const auto known = masks_.find(state);
  if (known != masks_.end()) return known->second;
  auto mask = std::make_shared<TokenMask>((static_cast<size_t>(trie_->vocab_size()) + 31) / 32);
  walk(trie_->nodes(), state, *mask);
  if (mask_order_.size() >= kMaxMasks) {
    masks_.erase(mask_order_.front());
    mask_order_.pop_front();
  }
  mask_order_.push_back(state);
  masks_.emplace(state, mask);
  return mask;
}

/// Adds the tokens of the trie that can follow `state`.
void Grammar::walk(std::span<const TokenTrie::Node> nodes, State state, TokenMask& mask) {
  path_[0] = state;
  const std::span<const int32_t> tokens = trie_->tokens();
  for (size_t i = 0; i < nodes.size();) {
    const TokenTrie::Node& node = nodes[i];
    const State next = automaton_.next(path_[node.depth], node.byte);
    if (next == kDead) {
      i = node.end;
      continue;
    }
    path_[node.depth + size_t{1}] = next;
    for (int32_t k = 0; k < node.n_tokens; ++k)
      set_bit(mask, tokens[static_cast<size_t>(node.first_token + k)]);
    ++i;
  }
}

GrammarMatcher::GrammarMatcher(std::shared_ptr<Grammar> grammar, const GrammarSpec& spec,
                               const Tokenizer& tokenizer)
    : grammar_(std::move(grammar)),
      tokenizer_(tokenizer),
      start_after_(spec.may_begin_with.empty() || !spec.triggers.empty() ? spec.start_after
                                                                         : std::string()),
      begins_with_(spec.triggers.empty() ? std::string() : spec.may_begin_with),
      triggers_(spec.triggers),
      is_active_(start_after_.empty() && triggers_.empty()),
      state_(grammar_->start()) {}

bool GrammarMatcher::apply(std::span<float> logits) {
  if (!is_active_) return true;
  if (!grammar_->fill_mask(state_, mask_)) return false;
  for (size_t word = 0; word < mask_.size(); ++word) {
    const uint32_t bits = mask_[word];
    if (bits == ~0u) continue;
    const size_t begin = word * 32;
    const size_t end = std::min(begin + 32, logits.size());
    for (size_t i = begin; i < end; ++i) {
      if (((bits >> (i - begin)) & 1u) == 0) logits[i] = kNegInf;
    }
  }
  return true;
}

void GrammarMatcher::accept(int32_t token) {
  if (!is_active_) return watch(token);
  const std::string_view piece = grammar_->piece(token);
  const State next = piece.empty() ? kDead : grammar_->next(state_, piece);
  if (next == kDead) {
    throw Error("grammar: token " + std::to_string(token) + " can't follow what was generated");
  }
  state_ = next;
}

bool GrammarMatcher::is_finished() const {
  return is_active_ && grammar_->is_final(state_) && grammar_->is_accepting(state_);
}

/// Looks for the beginning of the constrained part in the text so far.
void GrammarMatcher::watch(int32_t token) {
  seen_ += tokenizer_.piece(token, SpecialTokens::kParse);
  if (!begins_with_.empty() && !decide_beginning()) return;
  size_t longest = start_after_.size();
  for (const std::string& trigger : triggers_)
    longest = std::max(longest, trigger.size());
  size_t begin = std::string::npos;  // of the constrained text
  if (!start_after_.empty()) {
    const size_t found = seen_.find(start_after_);
    if (found != std::string::npos) {
      begin = found + start_after_.size();
      if (!triggers_.empty()) {
        // The triggers count only from here on.
        seen_.erase(0, begin);
        start_after_.clear();
        begin = std::string::npos;
      }
    }
  }
  if (start_after_.empty()) {
    for (const std::string& trigger : triggers_)
      begin = std::min(begin, seen_.find(trigger));
  }
  if (begin != std::string::npos) {
    is_active_ = true;
    // A token may reach beyond the marker; if that can't begin the constrained text, it begins
    // after it.
    const State next = grammar_->next(state_, std::string_view(seen_).substr(begin));
    if (next != kDead) state_ = next;
    seen_.clear();
  } else if (seen_.size() > 2 * longest) {
    seen_.erase(0, seen_.size() - longest);
  }
}

/// Whether the part before start_after is there at all shows with the first text. False while that
/// is open.
bool GrammarMatcher::decide_beginning() {
  const size_t first = seen_.find_first_not_of(" \t\r\n");
  if (first == std::string::npos) return false;
  const std::string_view text = std::string_view(seen_).substr(first);
  if (text.size() < begins_with_.size() && begins_with_.starts_with(text)) return false;
  if (!text.starts_with(begins_with_)) start_after_.clear();
  begins_with_.clear();
  return true;
}

GrammarCache::GrammarCache(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

std::shared_ptr<Grammar> GrammarCache::get(const GrammarSpec& spec) {
  const std::lock_guard lock(mutex_);
  std::string key =
      std::to_string(static_cast<int>(spec.kind)) + (spec.start_after.empty() ? "|" : " after|") +
      (spec.may_begin_with.empty() ? std::string()
                                   : spec.may_begin_with + '\0' + spec.start_after + '\0') +
      spec.source;
  for (const std::string& text : spec.control_tokens)
    key += '\0' + text;
  if (!spec.triggers.empty()) key += '\0';
  const auto known = std::find_if(grammars_.begin(), grammars_.end(),
                                  [&](const auto& entry) { return entry.first == key; });
  if (known != grammars_.end()) {
    std::rotate(grammars_.begin(), known, known + 1);
    return grammars_.front().second;
  }
  if (trie_ == nullptr) trie_ = std::make_shared<TokenTrie>(tokenizer_);
  auto grammar = std::make_shared<Grammar>(spec, trie_);
  grammars_.emplace_front(key, grammar);
  if (grammars_.size() > kMaxGrammars) grammars_.pop_back();
  return grammar;
}

}  // namespace dsctl::engine
