// Batch: everything one step of the model needs, as plain arrays, whoever computes it. The
// scheduler fills it, every rank's worker reads it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/request.h"

namespace dsctl::engine {

class DryBreakers;
class GrammarMatcher;

/// A row of logits that is wanted and how its token is chosen. Pointers belong to the scheduler and
/// live for the step.
struct SampleRow {
  int token_idx = 0;  // row of the batch whose logits are sampled
  RequestId request_id = 0;
  const SamplingParams* params = nullptr;
  const std::vector<int32_t>* history = nullptr;  // prompt and output so far
  int n_prompt = 0;                               // of history, the prompt's share
  uint64_t seed = 0;         // the request's; with the position it keys the draw
  float mirostat_mu = 0.0f;  // state in; the new one is in SampledToken
  /// Tokens that end a generation, banned while min_tokens is not reached or ignore_eos is set;
  /// empty when nothing is banned.
  const std::vector<int32_t>* banned = nullptr;
  /// The request's dry_sequence_breakers as token ids; null when DRY is off or has none.
  const DryBreakers* dry_breakers = nullptr;
  GrammarMatcher* grammar = nullptr;  // what the text must look like, or null
};

struct SampledToken {
  std::string error;  // why no token could be chosen; empty when one was
  int32_t token = 0;
  float logprob = 0.0f;
  std::vector<TokenLogprob> top_logprobs;
  float mirostat_mu = 0.0f;
};

/// One step: n_tokens tokens of n_seqs sequences; a sequence's tokens are adjacent and in order.
/// A sequence in decode has one token, one in prefill a chunk.
struct Batch {
  std::vector<int32_t> token_ids;     // (n_tokens)
  std::vector<int32_t> positions;     // (n_tokens) position in the sequence, from 0
  std::vector<int32_t> slot_mapping;  // (n_tokens) KV slot: block id * block_size + offset
  std::vector<int32_t> query_starts;  // (n_seqs + 1) first row of each sequence; last = n_tokens
  std::vector<int32_t> context_lens;  // (n_seqs) tokens in the KV cache after this step
  std::vector<int32_t> block_tables;  // (n_seqs, max_blocks_per_seq), row-major, padded with -1
  int max_blocks_per_seq = 0;
  std::vector<SampleRow> sample_rows;  // rows that want logits, ascending in token_idx
  std::vector<int32_t> state_rows;     // rows whose hidden states are wanted, ascending

  int n_tokens() const { return static_cast<int>(token_ids.size()); }
  int n_seqs() const { return static_cast<int>(context_lens.size()); }
};

}  // namespace dsctl::engine
