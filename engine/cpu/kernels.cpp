#include "engine/cpu/kernels.h"

#include "engine/cpu/fast/fast_kernels.h"

namespace dsctl::engine {
namespace {

class ReferenceKernels final : public KernelSet {
 public:
  std::string name() const override { return "reference"; }
  std::unique_ptr<LinearWeight> make_weight(const MatrixView& matrix,
                                            WeightArena& /*arena*/) const override {
    return make_reference_weight(matrix);
  }
  std::unique_ptr<LinearInput> make_input(int max_tokens, int64_t max_cols,
                                          int n_threads) const override {
    return make_reference_input(max_tokens, max_cols, n_threads);
  }
  void linear(LinearInput& input, std::span<const LinearOutput> outputs,
              ThreadPool& pool) const override {
    linear_reference(input, outputs, pool);
  }
  void add(const AddArgs& args, ThreadPool& pool) const override { add_reference(args, pool); }
  void rope_store(const RopeStoreArgs& args, ThreadPool& pool) const override {
    rope_store_reference(args, pool);
  }
  void attention(const AttentionArgs& args, ThreadPool& pool) const override {
    attention_reference(args, pool);
  }
  void mla_attention(const MlaAttentionArgs& args, ThreadPool& pool) const override {
    mla_attention_reference(args, pool);
  }
};

}  // namespace

const KernelSet& reference_kernels() {
  static const ReferenceKernels kernels;
  return kernels;
}

const KernelSet& select_kernels(CpuKernels choice) {
  const KernelSet* fast = choice == CpuKernels::kFast ? fast::fast_kernels() : nullptr;
  return fast != nullptr ? *fast : reference_kernels();
}

}  // namespace dsctl::engine
