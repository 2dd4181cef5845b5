// Program: a grammar compiled to nodes that match bytes. Characters become their UTF-8 sequences,
// so a token that ends inside a character needs no care later.
#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <vector>

#include "engine/grammar/syntax.h"

namespace dsctl::engine::grammar {

using ByteSet = std::bitset<256>;

/// One node of the program's graph.
struct Node {
  enum class Op : uint8_t {
    kBytes,   // one byte of set `arg`, then `next`
    kSplit,   // any of the targets[arg, arg + next)
    kCall,    // node `arg` up to its kReturn, then `next`
    kReturn,  // back to the caller
    kRepeat,  // counts[arg] rounds of a body, then `next`
  };
  Op op = Op::kReturn;
  int32_t arg = 0;
  int32_t next = 0;
};

/// A counted repetition. Its body takes at least one byte a round.
struct Count {
  int32_t body = 0;
  int32_t min = 0;
  int32_t max = 0;  // never unbounded: those are loops of the graph
};

/// Immutable.
class Program {
 public:
  /// Throws Error: left recursion (naming the rule), a program of more than a million nodes, a
  /// repetition that would be copied too often.
  static Program compile(const Syntax& syntax);

  int32_t start() const { return start_; }
  const Node& node(int32_t idx) const { return nodes_[static_cast<size_t>(idx)]; }
  const ByteSet& set(int32_t idx) const { return sets_[static_cast<size_t>(idx)]; }
  const Count& count(int32_t idx) const { return counts_[static_cast<size_t>(idx)]; }
  int32_t target(int32_t idx) const { return targets_[static_cast<size_t>(idx)]; }
  size_t n_nodes() const { return nodes_.size(); }

  /// Bytes that no set tells apart have one class.
  int n_classes() const { return n_classes_; }
  const std::array<uint8_t, 256>& class_of() const { return class_of_; }
  /// A byte of the class.
  uint8_t byte_of(int byte_class) const { return byte_of_[static_cast<size_t>(byte_class)]; }

 private:
  friend class Compiler;
  Program() = default;

  int32_t start_ = 0;
  std::vector<Node> nodes_;
  std::vector<ByteSet> sets_;
  std::vector<int32_t> targets_;
  std::vector<Count> counts_;
  int n_classes_ = 0;
  std::array<uint8_t, 256> class_of_{};
  std::array<uint8_t, 256> byte_of_{};
};

}  // namespace dsctl::engine::grammar
