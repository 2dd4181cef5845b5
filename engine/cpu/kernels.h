// CpuKernels' implementations: the loops of the CPU Ops that exist in more than one form, behind
// one table. The reference is the specification; a fast form keeps its meaning, meets the bounds of
// ops.h and is free in everything else.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "engine/cpu/attention.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/mla.h"
#include "engine/cpu/norm.h"
#include "engine/cpu/rope.h"
#include "engine/cpu/thread_pool.h"
#include "engine/cpu/weight_arena.h"
#include "engine/engine.h"

namespace dsctl::engine {

/// Immutable, shared by all ranks. Every function gives a row of the batch the same bits whatever
/// the other rows are, however many threads the pool has and however a prompt is cut into chunks.
class KernelSet {
 public:
  virtual ~KernelSet() = default;
  virtual std::string name() const = 0;  // "reference", "AVX-512 VNNI"

  /// Prepares a weight; its bytes in the model file outlive it. A copy goes into `arena`.
  virtual std::unique_ptr<LinearWeight> make_weight(const MatrixView& matrix,
                                                    WeightArena& arena) const = 0;
  /// Inputs of at most max_tokens rows of max_cols, for pools of n_threads.
  virtual std::unique_ptr<LinearInput> make_input(int max_tokens, int64_t max_cols,
                                                  int n_threads) const = 0;
  /// Applies weights to one input; all were made by this set.
  virtual void linear(LinearInput& input, std::span<const LinearOutput> outputs,
                      ThreadPool& pool) const = 0;

  virtual void add(const AddArgs& args, ThreadPool& pool) const = 0;
  virtual void rope_store(const RopeStoreArgs& args, ThreadPool& pool) const = 0;
  virtual void attention(const AttentionArgs& args, ThreadPool& pool) const = 0;
  virtual void mla_attention(const MlaAttentionArgs& args, ThreadPool& pool) const = 0;
};

const KernelSet& reference_kernels();

/// The set for `choice` on this processor: kFast is the reference where there is nothing faster.
const KernelSet& select_kernels(CpuKernels choice);

}  // namespace dsctl::engine
