// ObservingKernels: a KernelSet that shows a MatmulObserver every input before the set beneath it
// computes. The products are the same bits as without it.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "engine/cpu/kernels.h"
#include "engine/matmul_observer.h"

namespace dsctl::engine {

class ObservingKernels final : public KernelSet {
 public:
  /// Both outlive it.
  ObservingKernels(const KernelSet& inner, MatmulObserver& observer)
      : inner_(inner), observer_(observer) {}

  std::string name() const override { return inner_.name(); }
  std::unique_ptr<LinearWeight> make_weight(const MatrixView& matrix,
                                            WeightArena& arena) const override;
  std::unique_ptr<LinearInput> make_input(int max_tokens, int64_t max_cols,
                                          int n_threads) const override;
  void linear(LinearInput& input, std::span<const LinearOutput> outputs,
              ThreadPool& pool) const override;
  void add(const AddArgs& args, ThreadPool& pool) const override { inner_.add(args, pool); }
  void rope_store(const RopeStoreArgs& args, ThreadPool& pool) const override {
    inner_.rope_store(args, pool);
  }
  void attention(const AttentionArgs& args, ThreadPool& pool) const override {
    inner_.attention(args, pool);
  }
  void mla_attention(const MlaAttentionArgs& args, ThreadPool& pool) const override {
    inner_.mla_attention(args, pool);
  }

 private:
  const KernelSet& inner_;
  MatmulObserver& observer_;
};

}  // namespace dsctl::engine
