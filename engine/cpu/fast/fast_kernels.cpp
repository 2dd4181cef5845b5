#include "engine/cpu/fast/fast_kernels.h"

#include "engine/cpu/cpu_features.h"
#include "engine/cpu/fast/fast_attention.h"
#include "engine/cpu/fast/fast_linear.h"
#include "engine/cpu/fast/fast_mla.h"

namespace dsctl::engine::fast {
namespace {

class FastKernels final : public KernelSet {
 public:
  FastKernels(const LinearIsa& linear_isa, const VectorIsa& vector_isa,
              const AttentionIsa& attention_isa, const MlaIsa& mla_isa)
      : linear_(linear_isa), vector_(vector_isa), attention_(attention_isa), mla_(mla_isa) {}

  std::string name() const override { return linear_.name; }
  std::unique_ptr<LinearWeight> make_weight(const MatrixView& matrix,
                                            WeightArena& arena) const override {
    return fast::make_weight(linear_, matrix, arena);
  }
  std::unique_ptr<LinearInput> make_input(int max_tokens, int64_t max_cols,
                                          int n_threads) const override {
    return fast::make_input(linear_, vector_, max_tokens, max_cols, n_threads);
  }
  void linear(LinearInput& input, std::span<const LinearOutput> outputs,
              ThreadPool& pool) const override {
    fast::linear(linear_, input, outputs, pool);
  }
  void add(const AddArgs& args, ThreadPool& pool) const override {
    const int dim = args.x.n_cols;
    pool.parallel_for(args.x.n_rows, 8, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t) {
        float* y = args.y.row(t);
        if (args.bias != nullptr) vector_.add(y, args.bias, dim);
        if (args.post_norm != nullptr) vector_.rmsnorm(y, y, args.post_norm, dim, args.eps);
        vector_.add(args.x.row(t), y, dim);
      }
    });
  }
  void rope_store(const RopeStoreArgs& args, ThreadPool& pool) const override {
    if (!takes_pages(args.kv)) return rope_store_reference(args, pool);
    fast::rope_store(vector_, args, pool);
  }
  void attention(const AttentionArgs& args, ThreadPool& pool) const override {
    if (!takes_pages(args.kv)) return attention_reference(args, pool);
    fast::attention(attention_, args, pool);
  }
  void mla_attention(const MlaAttentionArgs& args, ThreadPool& pool) const override {
    if (!takes_latent_pages(args)) return mla_attention_reference(args, pool);
    fast::mla_attention(mla_, args, pool);
  }

 private:
  const LinearIsa& linear_;
  const VectorIsa& vector_;
  const AttentionIsa& attention_;
  const MlaIsa& mla_;
};

}  // namespace

const KernelSet* fast_kernels() {
  if (cpu_features().avx512_vnni) {
    static const FastKernels kernels(linear_avx512(), vector_avx512(), attention_avx512(),
                                     mla_avx512());
    return &kernels;
  }
  if (cpu_features().avx2) {
    static const FastKernels kernels(linear_avx2(), vector_avx2(), attention_avx2(), mla_avx2());
    return &kernels;
  }
  return nullptr;
}

}  // namespace dsctl::engine::fast
