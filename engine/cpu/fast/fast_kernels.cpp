#include "engine/cpu/fast/fast_kernels.h"

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/fast/fast_linear.h"

namespace dsctl::engine::fast {
namespace {

class FastKernels final : public KernelSet {
 public:
  explicit FastKernels(const LinearIsa& linear_isa) : linear_(linear_isa) {}

  std::string name() const override { return linear_.name; }
  std::unique_ptr<LinearWeight> make_weight(const MatrixView& matrix) const override {
    return fast::make_weight(linear_, matrix);
  }
  std::unique_ptr<LinearInput> make_input(int max_tokens, int64_t max_cols,
                                          int n_threads) const override {
    return fast::make_input(linear_, max_tokens, max_cols, n_threads);
  }
  void linear(LinearInput& input, std::span<const LinearOutput> outputs,
              ThreadPool& pool) const override {
    fast::linear(linear_, input, outputs, pool);
  }
  void add(const AddArgs& args, ThreadPool& pool) const override { add_reference(args, pool); }
  void rope_store(const RopeStoreArgs& args, ThreadPool& pool) const override {
    rope_store_reference(args, pool);
  }
  void attention(const AttentionArgs& args, ThreadPool& pool) const override {
    attention_reference(args, pool);
  }

 private:
  const LinearIsa& linear_;
};

}  // namespace

const KernelSet* fast_kernels() {
  if (cpu_features().avx512_vnni) {
    static const FastKernels kernels(linear_avx512());
    return &kernels;
  }
  if (cpu_features().avx2) {
    static const FastKernels kernels(linear_avx2());
    return &kernels;
  }
  return nullptr;
}

}  // namespace dsctl::engine::fast
