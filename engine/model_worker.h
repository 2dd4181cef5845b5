// ModelWorker: the real Worker. It loads a model for one or several ranks, each on a thread of its
// own, and runs every Batch on all of them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "engine/comm/thread_comm.h"
#include "engine/engine.h"
#include "engine/lora.h"
#include "engine/matmul_observer.h"
#include "engine/models/models.h"
#include "engine/ops.h"
#include "engine/rank_threads.h"
#include "engine/worker.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// The largest step and sequence that a rank's Ops must be able to compute.
struct OpsLimits {
  int max_tokens = 0;   // of one step
  int max_rows = 0;     // of logits in one step
  int max_context = 0;  // tokens of one sequence
};

/// The devices of a worker's ranks.
struct OpsBackend {
  /// Makes one rank's Ops, on that rank's thread.
  std::function<std::unique_ptr<Ops>(Communicator&, const OpsLimits&)> make_ops;
  gguf::DType kv_dtype = gguf::DType::F32;
  int64_t free_bytes = 0;  // of the devices' memory, for the cache
};

/// How a worker on the CPU keeps keys and values. Throws Error where `options` ask for what its
/// kernels can't read.
gguf::DType cpu_kv_dtype(const gguf::GgufFile& file, const EngineOptions& options);

class ModelWorker final : public Worker {
 public:
  /// On the device that `options` name. `file` outlives it, and `observer` (null: nobody looks),
  /// which takes one rank on the CPU. Throws Error as make_worker says.
  ModelWorker(const gguf::GgufFile& file, const EngineOptions& options,
              MatmulObserver* observer = nullptr);
  ModelWorker(const gguf::GgufFile& file, const EngineOptions& options, const OpsBackend& backend);
  ~ModelWorker() override;

  const ModelLimits& limits() const override { return limits_; }
  std::vector<SampledToken> run(const Batch& batch) override;
  std::span<const float> states() override;
  bool alive() const override;

  /// The logits of batch.sample_rows, (n_sample_rows, vocab_size), without sampling: of the rows
  /// only token_idx is read. For tests and for comparing with other engines.
  std::vector<float> run_logits(const Batch& batch);
  /// The same where they lie: (vocab_size) for each of batch.sample_rows, until the next step.
  std::vector<std::span<const float>> logit_rows(const Batch& batch);

 private:
  struct Rank;
  void check(const Batch& batch) const;
  void check_tables(const Batch& batch) const;
  void forward(const Batch& batch);
  void load_rank(const gguf::GgufFile& file, const OpsBackend& backend, const ModelConfig& config,
                 const Architecture& architecture, int rank);

  // Before the ranks: it may own what their Ops read.
  std::function<std::unique_ptr<Ops>(Communicator&, const OpsLimits&)> make_ops_;
  ModelLimits limits_;
  int max_tokens_ = 0;
  int max_rows_ = 0;
  std::vector<OpenAdapter> adapters_;  // mapped: weights may be read where they lie
  std::vector<std::unique_ptr<Rank>> ranks_;
  ThreadGroup group_;
  RankThreads threads_;
};

}  // namespace dsctl::engine
