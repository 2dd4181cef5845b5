#include "engine/grammar/program.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>

#include "engine/error.h"

namespace dsctl::engine::grammar {
namespace {

constexpr size_t kMaxNodes = 1'000'000;
// A repetition is written out where that takes no more copies than this, and counted otherwise.
constexpr int kMaxCopies = 4;
// Copies of something that can be empty, which can't be counted.
constexpr int kMaxNullableCopies = 64;

/// One UTF-8 sequence of byte ranges.
struct ByteRange {
  uint8_t first = 0;
  uint8_t last = 0;
};
using ByteSequence = std::vector<ByteRange>;

/// Adds the sequences that spell first..last, which have one length. Splits where the ranges of the
/// later bytes are not whole.
void add_sequences(char32_t first, char32_t last, std::vector<ByteSequence>& out) {
  for (int shift = 6; shift <= 18; shift += 6) {
    const char32_t mask = (char32_t{1} << shift) - 1;
    if ((first & ~mask) == (last & ~mask)) break;
    if ((first & mask) != 0) {
      add_sequences(first, first | mask, out);
      add_sequences((first | mask) + 1, last, out);
      return;
    }
    if ((last & mask) != mask) {
      add_sequences(first, (last & ~mask) - 1, out);
      add_sequences(last & ~mask, last, out);
      return;
    }
  }
  const std::string low = encode_utf8(first);
  const std::string high = encode_utf8(last);
  ByteSequence sequence;
  for (size_t i = 0; i < low.size(); ++i)
    sequence.push_back({static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i])});
  out.push_back(std::move(sequence));
}

std::vector<ByteSequence> utf8_sequences(const CharSet& set) {
  constexpr std::array<char32_t, 4> kLastOfLength{0x7F, 0x7FF, 0xFFFF, kLastCodePoint};
  std::vector<ByteSequence> sequences;
  for (const CodeRange& range : set) {
    char32_t first = range.first;
    for (const char32_t limit : kLastOfLength) {
      if (first > limit || first > range.last) continue;
      add_sequences(first, std::min(limit, range.last), sequences);
      first = limit + 1;
    }
  }
  return sequences;
}

}  // namespace

class Compiler {
 public:
  explicit Compiler(const Syntax& syntax) : syntax_(syntax) {}

  Program compile() {
    find_nullable_rules();
    refuse_left_recursion();
    for (const Syntax::Rule& rule : syntax_.rules) {
      (void)rule;
      // A rule's entry is known before its body, which may call it.
      entries_.push_back(add({.op = Node::Op::kSplit}));
    }
    const int32_t end = add({.op = Node::Op::kReturn});
    for (size_t i = 0; i < syntax_.rules.size(); ++i) {
      const int32_t body = compile(syntax_.rules[i].body, end);
      Node& entry = program_.nodes_[static_cast<size_t>(entries_[i])];
      entry.arg = static_cast<int32_t>(program_.targets_.size());
      entry.next = 1;
      program_.targets_.push_back(body);
    }
    program_.start_ = entries_[static_cast<size_t>(syntax_.root_idx)];
    classify_bytes();
    return std::move(program_);
  }

 private:
  int32_t add(Node node) {
    if (program_.nodes_.size() >= kMaxNodes) {
      throw Error("grammar: larger than " + std::to_string(kMaxNodes) +
                  " nodes; simplify it or lower its repetitions");
    }
    program_.nodes_.push_back(node);
    return static_cast<int32_t>(program_.nodes_.size()) - 1;
  }

  int32_t add_bytes(const ByteSet& set, int32_t next) {
    const auto [it, is_new] =
        set_idxs_.emplace(set.to_string(), static_cast<int32_t>(program_.sets_.size()));
    if (is_new) program_.sets_.push_back(set);
    return add({.op = Node::Op::kBytes, .arg = it->second, .next = next});
  }

  int32_t add_split(const std::vector<int32_t>& targets) {
    if (targets.size() == 1) return targets.front();
    const auto begin = static_cast<int32_t>(program_.targets_.size());
    program_.targets_.insert(program_.targets_.end(), targets.begin(), targets.end());
    return add(
        {.op = Node::Op::kSplit, .arg = begin, .next = static_cast<int32_t>(targets.size())});
  }

  /// The first node of `expr` when `next` comes after it.
  int32_t compile(const Expr& expr, int32_t next) {
    switch (expr.kind) {
      case Expr::Kind::kChars:
        return compile_chars(expr.chars, next);
      case Expr::Kind::kSequence:
        for (auto part = expr.parts.rbegin(); part != expr.parts.rend(); ++part)
          next = compile(*part, next);
        return next;
      case Expr::Kind::kChoice: {
        std::vector<int32_t> targets;
        targets.reserve(expr.parts.size());
        for (const Expr& part : expr.parts)
          targets.push_back(compile(part, next));
        return add_split(targets);
      }
      case Expr::Kind::kRepeat:
        return compile_repeat(expr, next);
      case Expr::Kind::kRule:
        return add({.op = Node::Op::kCall,
                    .arg = entries_[static_cast<size_t>(expr.rule_idx)],
                    .next = next});
    }
    return next;
  }

  int32_t compile_chars(const CharSet& set, int32_t next) {
    // Sequences that end alike share their ends; the first bytes of single-byte ones are one set.
    std::map<std::pair<int32_t, std::pair<uint8_t, uint8_t>>, int32_t> tails;
    std::map<int32_t, ByteSet> firsts;  // by the node that follows the first byte
    for (const ByteSequence& bytes : utf8_sequences(set)) {
      int32_t after = next;
      for (size_t i = bytes.size() - 1; i > 0; --i) {
        const auto key = std::make_pair(after, std::make_pair(bytes[i].first, bytes[i].last));
        const auto known = tails.find(key);
        if (known != tails.end()) {
          after = known->second;
          continue;
        }
        after = add_bytes(set_of(bytes[i]), after);
        tails.emplace(key, after);
      }
      firsts[after] |= set_of(bytes.front());
    }
    std::vector<int32_t> targets;
    for (const auto& [after, first] : firsts)
      targets.push_back(add_bytes(first, after));
    if (targets.empty()) return add_bytes({}, next);  // matches nothing
    return add_split(targets);
  }

  static ByteSet set_of(ByteRange range) {
    ByteSet set;
    for (int byte = range.first; byte <= range.last; ++byte)
      set.set(static_cast<size_t>(byte));
    return set;
  }

  int32_t compile_repeat(const Expr& expr, int32_t next) {
    const Expr& part = expr.parts.front();
    const bool nullable = is_nullable(part);
    const bool unbounded = expr.max == Expr::kUnbounded;
    // Rounds that may be empty need not be made: the text is the same without them.
    const int min = nullable ? 0 : expr.min;
    if (unbounded) {
      const int32_t loop = add({.op = Node::Op::kSplit, .next = 2});
      const int32_t body = compile(part, loop);
      Node& split = program_.nodes_[static_cast<size_t>(loop)];
      split.arg = static_cast<int32_t>(program_.targets_.size());
      program_.targets_.push_back(body);
      program_.targets_.push_back(next);
      return min == 0 ? loop : compile_counted(part, min, min, loop);
    }
    if (nullable && expr.max > kMaxNullableCopies) {
      throw Error("grammar: a repetition up to " + std::to_string(expr.max) +
                  " times of something that can be empty; at most " +
                  std::to_string(kMaxNullableCopies) + " times, or \"*\"");
    }
    return nullable ? copies(part, 0, expr.max, next) : compile_counted(part, min, expr.max, next);
  }

  int32_t compile_counted(const Expr& part, int min, int max, int32_t next) {
    if (max <= kMaxCopies) return copies(part, min, max, next);
    const auto idx = static_cast<int32_t>(program_.counts_.size());
    program_.counts_.push_back({.min = min, .max = max});
    const int32_t end = add({.op = Node::Op::kReturn});
    const int32_t body = compile(part, end);
    program_.counts_[static_cast<size_t>(idx)].body = body;
    return add({.op = Node::Op::kRepeat, .arg = idx, .next = next});
  }

  int32_t copies(const Expr& part, int min, int max, int32_t next) {
    const int32_t after = next;
    for (int i = max; i > 0; --i) {
      const int32_t copy = compile(part, next);
      next = i > min ? add_split({copy, after}) : copy;
    }
    return next;
  }

  bool is_nullable(const Expr& expr) const {
    switch (expr.kind) {
      case Expr::Kind::kChars:
        return false;
      case Expr::Kind::kSequence:
        return std::all_of(expr.parts.begin(), expr.parts.end(),
                           [this](const Expr& part) { return is_nullable(part); });
      case Expr::Kind::kChoice:
        return std::any_of(expr.parts.begin(), expr.parts.end(),
                           [this](const Expr& part) { return is_nullable(part); });
      case Expr::Kind::kRepeat:
        return expr.min == 0 || is_nullable(expr.parts.front());
      case Expr::Kind::kRule:
        return nullable_[static_cast<size_t>(expr.rule_idx)];
    }
    return false;
  }

  void find_nullable_rules() {
    nullable_.assign(syntax_.rules.size(), false);
    for (bool changed = true; changed;) {
      changed = false;
      for (size_t i = 0; i < syntax_.rules.size(); ++i) {
        if (nullable_[i] || !is_nullable(syntax_.rules[i].body)) continue;
        nullable_[i] = true;
        changed = true;
      }
    }
  }

  /// The rules that can begin `expr`, added to `out`.
  void first_rules(const Expr& expr, std::vector<int>& out) const {
    if (expr.kind == Expr::Kind::kRule) out.push_back(expr.rule_idx);
    for (const Expr& part : expr.parts) {
      first_rules(part, out);
      if (expr.kind == Expr::Kind::kSequence && !is_nullable(part)) return;
    }
  }

  void refuse_left_recursion() const {
    enum class Mark : uint8_t { kNew, kOpen, kDone };
    std::vector<Mark> marks(syntax_.rules.size(), Mark::kNew);
    std::vector<std::vector<int>> firsts(syntax_.rules.size());
    for (size_t i = 0; i < firsts.size(); ++i)
      first_rules(syntax_.rules[i].body, firsts[i]);
    // Depth first without recursion: a grammar may be a chain of thousands of rules.
    std::vector<std::pair<int, size_t>> path;
    for (size_t root = 0; root < firsts.size(); ++root) {
      if (marks[root] != Mark::kNew) continue;
      path.emplace_back(static_cast<int>(root), 0);
      marks[root] = Mark::kOpen;
      while (!path.empty()) {
        auto& [rule_idx, next] = path.back();
        const std::vector<int>& edges = firsts[static_cast<size_t>(rule_idx)];
        if (next == edges.size()) {
          marks[static_cast<size_t>(rule_idx)] = Mark::kDone;
          path.pop_back();
          continue;
        }
        const int to = edges[next++];
        Mark& mark = marks[static_cast<size_t>(to)];
        if (mark == Mark::kOpen) {
          throw Error("grammar: rule \"" + syntax_.rules[static_cast<size_t>(to)].name +
                      "\" can begin with itself (left recursion); put the repeated part last, or "
                      "use \"*\"");
        }
        if (mark == Mark::kNew) {
          mark = Mark::kOpen;
          path.emplace_back(to, 0);
        }
      }
    }
  }

  void classify_bytes() {
    std::map<std::vector<bool>, uint8_t> classes;
    for (size_t byte = 0; byte < 256; ++byte) {
      std::vector<bool> membership;
      membership.reserve(program_.sets_.size());
      for (const ByteSet& set : program_.sets_)
        membership.push_back(set[byte]);
      const auto [it, is_new] =
          classes.emplace(std::move(membership), static_cast<uint8_t>(classes.size()));
      program_.class_of_[byte] = it->second;
      if (is_new) program_.byte_of_[it->second] = static_cast<uint8_t>(byte);
    }
    program_.n_classes_ = static_cast<int>(classes.size());
  }

  const Syntax& syntax_;
  Program program_;
  std::vector<bool> nullable_;
  std::vector<int32_t> entries_;
  std::map<std::string, int32_t> set_idxs_;
};

Program Program::compile(const Syntax& syntax) {
  return Compiler(syntax).compile();
}

}  // namespace dsctl::engine::grammar
