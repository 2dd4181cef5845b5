// Scheduler: which tokens of which sequences the next step computes. Pure host code.
#pragma once

#include <cstdint>
#include <set>
#include <vector>

#include "engine/batch.h"
#include "engine/block_manager.h"
#include "engine/sequence.h"

namespace dsctl::engine {

struct SchedulerOptions {
  int max_num_seqs = 16;             // sequences that hold KV blocks at once
  int max_num_batched_tokens = 512;  // tokens in one step; at least max_num_seqs
};

/// Continuous batching: sequences join and leave between any two steps.
///
/// A step first takes the one next token of every sequence in decode, then shares the rest of its
/// tokens among the prompts: the oldest gets half, the next half of what is left and so on, and
/// what short ones leave over goes to the oldest. So a long prompt neither waits for short ones nor
/// makes them wait.
///
/// Sequences are admitted strictly in order of arrival, with blocks for all their tokens so far.
/// When a growing one finds no free block the youngest is preempted: it gives its blocks back and
/// waits to be computed again (mostly found in the prefix cache). Hence all running sequences are
/// older than all waiting ones, the oldest is never preempted, and every one ends, provided that
/// each alone fits into the blocks.
class Scheduler {
 public:
  /// `blocks` must outlive the scheduler.
  Scheduler(const SchedulerOptions& options, BlockManager* blocks);

  /// Takes in a sequence, which must live until remove. Its id is above all earlier ones, its
  /// max_len at most what all blocks hold.
  void add(Sequence* sequence);
  /// Lets a sequence go, whatever its state, and gives its blocks back. Not between schedule and
  /// complete or abandon.
  void remove(Sequence* sequence);

  /// Chooses and lays out the next step; empty when no sequence is here. Valid until the next call.
  const Batch& schedule();
  /// The sequences of the step, in the batch's order.
  const std::vector<Sequence*>& scheduled() const { return scheduled_; }
  /// The sequences that the batch's sample_rows belong to, in their order.
  const std::vector<Sequence*>& sampled() const { return sampled_; }
  /// The step was computed: its tokens are in the KV cache. Before new tokens are appended.
  void complete();
  /// The step failed: nothing of it counts.
  void abandon();

  int n_running() const { return static_cast<int>(running_.size()); }
  int n_waiting() const { return static_cast<int>(waiting_.size()); }
  int64_t n_preemptions() const { return n_preemptions_; }

 private:
  struct ByArrival {
    bool operator()(const Sequence* a, const Sequence* b) const { return a->id < b->id; }
  };

  int schedule_decodes(int budget);
  void schedule_prefills(int budget);
  void admit(int budget);
  void preempt(Sequence* sequence);
  void lay_out();
  void add_sample_row(Sequence& sequence);

  SchedulerOptions options_;
  BlockManager& blocks_;
  std::set<Sequence*, ByArrival> waiting_;
  std::set<Sequence*, ByArrival> running_;
  std::vector<Sequence*> scheduled_;
  std::vector<Sequence*> sampled_;
  std::vector<Sequence*> prefills_;  // scratch
  Batch batch_;
  bool preempted_ = false;  // in this step
  int64_t n_preemptions_ = 0;
};

}  // namespace dsctl::engine
