// What follows the head's projection, on the CPU.
#pragma once

#include "engine/cpu/thread_pool.h"
#include "engine/tensor.h"

namespace dsctl::engine {

/// logits = cap * tanh(logits / cap), in place.
void soft_cap(const MutableRows& logits, float cap, ThreadPool& pool);

/// The ranks' shares of the vocabulary, gathered one rank after the other, as whole rows:
/// `gathered` (n_ranks; n_rows, share of the rank) -> `logits` (n_rows, vocab). `first_tokens`
/// (n_ranks + 1) are the bounds of the shares.
void join_shares(const MutableRows& logits, const float* gathered, const int64_t* first_tokens,
                 int n_ranks);

}  // namespace dsctl::engine
