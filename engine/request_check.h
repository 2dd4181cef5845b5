// The engine's border: whether a request can be taken at all. Inside, everything is trusted.
#pragma once

#include <optional>
#include <string>

#include "engine/engine.h"
#include "engine/request.h"

namespace dsctl::engine {

struct RequestLimits {
  int vocab_size = 0;
  int max_model_len = 0;       // tokens of one sequence, prompt and output
  bool has_tokenizer = false;  // for DRY's sequence breakers
  bool gives_states = false;   // for pooling
  bool has_rank_head = false;  // for Pooling::kRank
};

struct Refusal {
  SubmitError error = SubmitError::kBadSampling;
  std::string message;
};

/// Why `request` is refused; nothing when it can be taken.
std::optional<Refusal> check_request(const Request& request, const RequestLimits& limits);

}  // namespace dsctl::engine
