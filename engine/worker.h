// Worker: what runs a Batch. The engine's own one drives one rank's device, weights, KV pages and
// Ops (and, under tensor parallelism, its fellows); scheduler tests use a fake.
#pragma once

#include <vector>

#include "engine/batch.h"

namespace dsctl::engine {

/// What the scheduler must know of the loaded model.
struct ModelLimits {
  int vocab_size = 0;
  int max_model_len = 0;  // after the model's own context length
  int block_size = 0;
  int n_kv_blocks = 0;
  std::vector<int32_t> eog_token_ids;
};

class Worker {
 public:
  virtual ~Worker() = default;
  virtual const ModelLimits& limits() const = 0;
  /// Computes one step and samples its sample_rows, in their order. Called by one thread only.
  /// Throws Error when the step can't be computed; the engine then fails the requests of the batch.
  virtual std::vector<SampledToken> run(const Batch& batch) = 0;
};

}  // namespace dsctl::engine
