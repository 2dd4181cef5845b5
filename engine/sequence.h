// Sequence: one generation as the scheduler sees it: its tokens, how far they are computed, its KV
// blocks.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "engine/block_manager.h"
#include "engine/pooling.h"
#include "engine/request.h"

namespace dsctl::engine {

class DryBreakers;
class GrammarMatcher;

/// Owned by the engine. The second group of members is the scheduler's.
struct Sequence {
  RequestId id = 0;             // ascending in order of arrival
  std::vector<int32_t> tokens;  // prompt and output
  int n_prompt = 0;
  int max_len = 0;                 // of tokens: the generation ends there
  int min_tokens = 0;              // of the output
  bool wants_tokens = true;        // false: only the prompt is to be computed
  std::optional<Pooling> pooling;  // then tokens are not wanted either
  SamplingParams sampling;
  uint64_t seed = 0;
  float mirostat_mu = 0.0f;
  std::vector<int32_t> banned_early;                // while there are fewer than min_tokens
  std::vector<int32_t> banned_always;               // afterwards
  std::shared_ptr<const DryBreakers> dry_breakers;  // shared by requests with the same strings
  std::shared_ptr<GrammarMatcher> grammar;          // this sequence's own; null: free text

  BlockTable table;
  int n_computed = 0;   // leading tokens whose KV is there
  int n_scheduled = 0;  // tokens of the step under way
  int n_cached = 0;     // of the prompt, found in the prefix cache when it was first admitted
  bool was_admitted = false;

  int n_tokens() const { return static_cast<int>(tokens.size()); }
  PrefixUse prefix_use() const {
    return pooling && pooling_needs_prefix(*pooling) ? PrefixUse::kCompute : PrefixUse::kReuse;
  }
  int n_generated() const { return n_tokens() - n_prompt; }
  int n_pending() const { return n_tokens() - n_computed; }
};

}  // namespace dsctl::engine
