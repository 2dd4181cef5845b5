// The syntax tree of a grammar over code points: what GBNF, JSON schemas and regular expressions
// are read into, and what Program compiles.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::engine::grammar {

/// Code points first..last, both included.
struct CodeRange {
  char32_t first = 0;
  char32_t last = 0;
  bool operator==(const CodeRange&) const = default;
};

/// A set of code points: ascending, disjoint ranges.
using CharSet = std::vector<CodeRange>;

inline constexpr char32_t kLastCodePoint = 0x10FFFF;

/// Sorts and joins ranges; drops surrogates, which no UTF-8 text has.
CharSet normalized(CharSet set);
/// Every code point that is not in `set`.
CharSet complement(const CharSet& set);
/// What is in both.
CharSet intersection(const CharSet& a, const CharSet& b);

/// One node of a rule's right-hand side.
struct Expr {
  enum class Kind {
    kChars,     // one code point of `chars`
    kSequence,  // `parts`, one after the other; none: the empty string
    kChoice,    // one of `parts`
    kRepeat,    // parts[0], `min` to `max` times
    kRule,      // rule `rule_idx`
  };
  static constexpr int kUnbounded = -1;

  Kind kind = Kind::kSequence;
  CharSet chars{};
  std::vector<Expr> parts{};
  int min = 0;
  int max = kUnbounded;
  int rule_idx = -1;
};

Expr chars(CharSet set);
Expr literal(std::u32string_view text);
/// The same for UTF-8; bytes that are none become U+FFFD.
Expr literal(std::string_view text);
Expr sequence(std::vector<Expr> parts);
Expr choice(std::vector<Expr> parts);
Expr repeat(Expr part, int min, int max = Expr::kUnbounded);
Expr optional(Expr part);
Expr rule(int rule_idx);

/// A whole grammar. Rules refer to each other by index.
struct Syntax {
  struct Rule {
    std::string name;
    Expr body;
  };
  std::vector<Rule> rules;
  int root_idx = 0;
};

/// The code points of UTF-8 `text`; what is no UTF-8 becomes U+FFFD.
std::u32string decode_utf8(std::string_view text);
/// `code_point` in UTF-8.
std::string encode_utf8(char32_t code_point);

}  // namespace dsctl::engine::grammar
