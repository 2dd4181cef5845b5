#include "engine/cpu/head.h"

#include <algorithm>
#include <cmath>

namespace dsctl::engine {

void soft_cap(const MutableRows& logits, float cap, ThreadPool& pool) {
  for (int64_t row = 0; row < logits.n_rows; ++row) {
    float* values = logits.row(row);
    pool.parallel_for(logits.n_cols, 4096, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t i = begin; i < end; ++i)
        values[i] = cap * std::tanh(values[i] / cap);
    });
  }
}

void join_shares(const MutableRows& logits, const float* gathered, const int64_t* first_tokens,
                 int n_ranks) {
  for (int rank = 0; rank < n_ranks; ++rank) {
    const int64_t share = first_tokens[rank + 1] - first_tokens[rank];
    for (int64_t row = 0; row < logits.n_rows; ++row) {
      std::copy_n(gathered, share, logits.row(row) + first_tokens[rank]);
      gathered += share;
    }
  }
}

}  // namespace dsctl::engine
