// FakeWorker: a paged KV cache that stores the tokens themselves, and a "model" whose logits are a
// hash of the tokens that it finds there through block tables and slots. A wrong table, a slot
// written by somebody else or a block shared too early changes the tokens that come out, and is
// reported as a violation besides.
#pragma once

#include <functional>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "engine/sampler.h"
#include "engine/worker.h"

namespace dsctl::tests {

/// The fake model: logits (vocab_size) after `history`, the end-of-generation tokens as likely as
/// any other.
std::vector<float> fake_logits(std::span<const int32_t> history, int vocab_size);

struct FakeModel {
  engine::ModelLimits limits;
  /// Called at the start of each step, on the engine's thread; may wait or throw.
  std::function<void(const engine::Batch&)> on_step;
  /// May change what a step returns.
  std::function<void(const engine::Batch&, std::vector<engine::SampledToken>&)> on_result;
  std::function<bool()> is_alive;
};

/// Limits with a small vocabulary.
engine::ModelLimits fake_limits(int n_kv_blocks, int block_size, int max_model_len,
                                std::vector<int32_t> eog_token_ids = {});

class FakeWorker final : public engine::Worker {
 public:
  /// Violations are appended to `violations`, which must outlive the worker; read it when no step
  /// is under way.
  FakeWorker(FakeModel model, std::vector<std::string>* violations);

  const engine::ModelLimits& limits() const override { return model_.limits; }
  std::vector<engine::SampledToken> run(const engine::Batch& batch) override;
  bool alive() const override { return !model_.is_alive || model_.is_alive(); }

 private:
  struct Slot {
    int32_t token = -1;
    int32_t position = -1;
  };

  bool is_well_formed(const engine::Batch& batch);
  void write(const engine::Batch& batch);
  std::vector<int32_t> read_history(const engine::Batch& batch, int seq_idx);
  void require(bool holds, const std::string& what);

  FakeModel model_;
  std::vector<std::string>& violations_;
  std::vector<Slot> slots_;
  engine::Sampler sampler_;
};

}  // namespace dsctl::tests
