// The generated table of general categories; read it through unicode.h.
#pragma once

#include <cstdint>
#include <iterator>

namespace dsctl::engine {

/// General categories as bits, so that a set of them is one mask. C (other) has no bit.
enum class Category : uint16_t {
  Lu = 1 << 0,  // upper-case letter
  Ll = 1 << 1,  // lower-case letter
  Lt = 1 << 2,  // title-case letter
  Lm = 1 << 3,  // modifier letter
  Lo = 1 << 4,  // other letter
  M = 1 << 5,   // mark
  N = 1 << 6,   // number
  P = 1 << 7,   // punctuation
  S = 1 << 8,   // symbol
  Z = 1 << 9,   // separator
};

struct CategoryRange {
  uint32_t first;
  uint32_t last;  // inclusive
  Category category;
};

extern const CategoryRange kCategoryRanges[];  // ascending, disjoint
extern const int kNumCategoryRanges;

}  // namespace dsctl::engine
