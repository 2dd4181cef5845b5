// How a model is cut for tensor parallelism: which heads, which columns of the feed-forward network
// and which part of the vocabulary a rank has. Shares may be uneven; nothing is replicated
// silently.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "engine/error.h"

namespace dsctl::engine {

/// Indices [begin, end).
struct Range {
  int64_t begin = 0;
  int64_t end = 0;

  int64_t size() const { return end - begin; }
  Range times(int64_t factor) const { return {begin * factor, end * factor}; }
};

/// One rank's place in its group.
struct Shard {
  int rank = 0;
  int size = 1;

  /// This rank's share of `n` units; the first ranks have one more when they don't divide evenly.
  /// Throws Error when there are fewer units than ranks; `what` names them: "key/value heads".
  Range split(int64_t n, const std::string& what) const {
    if (n < size) {
      throw Error("tensor parallelism over " + std::to_string(size) +
                  " ranks: the model has only " + std::to_string(n) + " " + what +
                  ", give at most as many ranks");
    }
    const auto bound = [&](int64_t r) { return n / size * r + std::min<int64_t>(r, n % size); };
    return {bound(rank), bound(rank + 1)};
  }

  /// The same in whole blocks of `block` values: the last unit may be shorter.
  Range split_blocks(int64_t n, int64_t block, const std::string& what) const {
    const Range units = split((n + block - 1) / block, what);
    return {units.begin * block, std::min(units.end * block, n)};
  }
};

/// `range` widened to whole blocks. The columns that are foreign to it meet zeros in the input, so
/// heads may end inside a quantisation block.
inline Range widen(Range range, int64_t block) {
  return {range.begin / block * block, (range.end + block - 1) / block * block};
}

}  // namespace dsctl::engine
