// SpecialMatcher: finds special tokens in a text, however many there are (Gemma 3 has over 6,000).
#pragma once

#include <bitset>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace dsctl::engine {

/// A set of texts, each with an id. Immutable after the last `add`; thread-safe then.
class SpecialMatcher {
 public:
  struct Match {
    size_t begin = 0;
    size_t end = 0;
    int32_t id = -1;
  };

  /// Adds `text`; an empty one is ignored, and a text added twice keeps the last id.
  void add(std::string_view text, int32_t id);

  /// The first match in `text` at or after `from`, and the longest of those that begin there (as HF
  /// tokenizers do); id -1 when there is none.
  Match find(std::string_view text, size_t from) const;

 private:
  struct Node {
    int32_t id = -1;
    std::vector<std::pair<unsigned char, uint32_t>> children;  // by byte, ascending
  };

  /// The child of `node` at `byte`, or 0.
  uint32_t child(uint32_t node, unsigned char byte) const;

  std::vector<Node> nodes_{Node{}};  // a trie; 0 is the root
  std::bitset<256> first_bytes_;
  std::bitset<65536> first_two_bytes_;  // of texts of two bytes and more
};

}  // namespace dsctl::engine
