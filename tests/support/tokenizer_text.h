// Random text for tokenizer tests: many scripts, emoji, white space, digits, code, broken UTF-8.
#pragma once

#include <cstdint>
#include <random>
#include <string>

namespace dsctl::tests {

/// Makes texts; the same seed gives the same texts.
class RandomText {
 public:
  explicit RandomText(uint64_t seed) : random_(seed) {}

  /// A text of 1 to `n_max` parts: characters, words, runs. With `broken`, bytes that are no UTF-8
  /// come in.
  std::string next(int n_max, bool broken);

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<uint64_t>(n)); }
  uint32_t code_point();
  void append_part(std::string& out);

  std::mt19937_64 random_;
};

}  // namespace dsctl::tests
