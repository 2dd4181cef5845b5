// The golden models of tests/golden/models and batches to run them with.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"

namespace dsctl::tests {

/// A tiny random model and what transformers computes with it.
struct GoldenModel {
  std::string name;
  std::filesystem::path path;
  std::vector<int32_t> tokens;
  int vocab_size = 0;
  std::vector<float> logits;  // (n_tokens, vocab_size)
};

/// Every case of make_goldens.py. Throws when one is not there.
const std::vector<GoldenModel>& golden_models();
const GoldenModel& golden_model(const std::string& name);

/// Small limits; blocks of 8 tokens, so that sequences span several.
engine::EngineOptions small_options();

/// A sequence's KV blocks.
using Blocks = std::vector<int32_t>;

/// Adds tokens [begin, end) of a sequence to a batch, with logits wanted for all of them.
void add_tokens(engine::Batch& batch, const std::vector<int32_t>& tokens, int begin, int end,
                const Blocks& blocks, int block_size);

/// sqrt-free distance: sum((a - b)^2) / sum(b^2).
double nmse(const std::vector<float>& a, const std::vector<float>& b);
double max_abs_error(const std::vector<float>& a, const std::vector<float>& b);

}  // namespace dsctl::tests
