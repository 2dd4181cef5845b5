// Worker: what runs a Batch. The engine's own one drives one rank's device, weights, KV pages and
// Ops (and, under tensor parallelism, its fellows); scheduler tests use a fake.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "engine/batch.h"
#include "engine/engine.h"
#include "engine/pooling.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// What the engine must know of the loaded model.
struct ModelLimits {
  int vocab_size = 0;
  int max_model_len = 0;  // after the model's own context length
  int block_size = 0;
  int n_kv_blocks = 0;
  std::vector<int32_t> eog_token_ids;
  int state_dim = 0;                          // of a hidden state; 0: this worker gives none
  std::shared_ptr<const RankHead> rank_head;  // null: the model has none
  // For EngineStats only.
  std::string device;
  int64_t weight_bytes = 0;
  int64_t kv_bytes = 0;
};

class Worker {
 public:
  virtual ~Worker() = default;
  virtual const ModelLimits& limits() const = 0;
  /// Computes one step and samples its sample_rows: one SampledToken for each, in their order.
  /// Called by one thread only. A row that can't be sampled has SampledToken::error set and fails
  /// only its own request. Throws Error when the step can't be computed; the engine then fails the
  /// requests of the batch and goes on with the others, unless alive() says no.
  virtual std::vector<SampledToken> run(const Batch& batch) = 0;
  /// The hidden states of the last run's state_rows, (n_state_rows, dim) row-major, until the next
  /// one.
  virtual std::span<const float> states() { return {}; }
  /// False once no later run can succeed (a lost device, a rank that is gone): the engine then
  /// fails all its requests and takes no more.
  virtual bool alive() const { return true; }
};

/// The real worker for `file`, which must outlive it. Throws Error when the architecture is not
/// supported, a key or tensor is missing or has another shape, or memory does not suffice.
std::unique_ptr<Worker> make_worker(const gguf::GgufFile& file, const EngineOptions& options);

/// An engine over any worker: what Engine::load does once it has made the real one. Throws Error
/// when an option or a limit makes no sense.
std::unique_ptr<Engine> make_engine(std::unique_ptr<Worker> worker, const EngineOptions& options);

}  // namespace dsctl::engine
