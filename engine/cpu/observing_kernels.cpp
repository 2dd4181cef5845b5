#include "engine/cpu/observing_kernels.h"

#include <algorithm>
#include <vector>

#include "engine/cpu/ffn.h"
#include "engine/cpu/norm.h"

namespace dsctl::engine {
namespace {

/// A weight that remembers where it lies in the file.
class ObservedWeight final : public LinearWeight {
 public:
  ObservedWeight(std::unique_ptr<LinearWeight> inner, const std::byte* data)
      : inner_(std::move(inner)), data_(data) {}
  int64_t n_rows() const override { return inner_->n_rows(); }
  int64_t n_cols() const override { return inner_->n_cols(); }
  size_t owned_bytes() const override { return inner_->owned_bytes(); }
  const LinearWeight* inner() const { return inner_.get(); }
  const std::byte* data() const { return data_; }

 private:
  std::unique_ptr<LinearWeight> inner_;
  const std::byte* data_;
};

/// An input that keeps its f32 rows too.
class ObservedInput final : public LinearInput {
 public:
  ObservedInput(std::unique_ptr<LinearInput> inner, int max_tokens, int64_t max_cols)
      : inner_(std::move(inner)), values_(static_cast<size_t>(max_tokens * max_cols)) {}

  LinearInput& inner() { return *inner_; }
  /// The rows of one group.
  Rows rows(int group) const {
    const auto idx = static_cast<size_t>(group);
    return {values_.data() + starts_[idx] * n_cols_, n_cols_, starts_[idx + 1] - starts_[idx],
            n_cols_};
  }

  void assign(const Rows& x, ThreadPool& pool) override {
    keep(x.n_rows, x.n_cols, pool,
         [&](int64_t row, float* to) { std::copy_n(x.row(row), x.n_cols, to); });
    inner_->assign(x, pool);
  }
  void assign_rmsnorm(const Rows& x, const float* weight, float eps, ThreadPool& pool) override {
    keep(x.n_rows, x.n_cols, pool,
         [&](int64_t row, float* to) { rmsnorm(to, x.row(row), weight, x.n_cols, eps); });
    inner_->assign_rmsnorm(x, weight, eps, pool);
  }
  void assign_gated(const Rows& gate, const Rows& up, Activation activation,
                    ThreadPool& pool) override {
    keep(gate.n_rows, gate.n_cols, pool, [&](int64_t row, float* to) {
      gated(to, gate.row(row), up.row(row), gate.n_cols, activation);
    });
    inner_->assign_gated(gate, up, activation, pool);
  }
  void assign_rows(const LinearInput& from, std::span<const int32_t> row_idx,
                   ThreadPool& pool) override {
    const auto& source = static_cast<const ObservedInput&>(from);
    const int n_cols = source.n_cols_;
    keep(static_cast<int>(row_idx.size()), n_cols, pool, [&](int64_t row, float* to) {
      std::copy_n(source.values_.data() + int64_t{row_idx[static_cast<size_t>(row)]} * n_cols,
                  n_cols, to);
    });
    inner_->assign_rows(*source.inner_, row_idx, pool);
  }
  void group(std::span<const int32_t> starts) override {
    starts_.assign(starts.begin(), starts.end());
    inner_->group(starts);
  }

 private:
  template <typename MakeRow>
  void keep(int n_rows, int n_cols, ThreadPool& pool, MakeRow&& make_row) {
    n_cols_ = n_cols;
    starts_ = {0, n_rows};
    pool.parallel_for(n_rows, 4, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t row = begin; row < end; ++row)
        make_row(row, values_.data() + row * n_cols);
    });
  }

  std::unique_ptr<LinearInput> inner_;
  std::vector<float> values_;          // (max_tokens, max_cols)
  std::vector<int32_t> starts_{0, 0};  // of the groups, and the end
  int n_cols_ = 0;
};

}  // namespace

std::unique_ptr<LinearWeight> ObservingKernels::make_weight(const MatrixView& matrix,
                                                            WeightArena& arena) const {
  return std::make_unique<ObservedWeight>(inner_.make_weight(matrix, arena), matrix.data);
}

std::unique_ptr<LinearInput> ObservingKernels::make_input(int max_tokens, int64_t max_cols,
                                                          int n_threads) const {
  return std::make_unique<ObservedInput>(inner_.make_input(max_tokens, max_cols, n_threads),
                                         max_tokens, max_cols);
}

void ObservingKernels::linear(LinearInput& input, std::span<const LinearOutput> outputs,
                              ThreadPool& pool) const {
  auto& observed = static_cast<ObservedInput&>(input);
  std::vector<LinearOutput> inner(outputs.begin(), outputs.end());
  for (LinearOutput& output : inner) {
    const auto& weight = static_cast<const ObservedWeight&>(*output.weight);
    observer_.see(weight.data(), observed.rows(output.group));
    output.weight = weight.inner();
  }
  inner_.linear(observed.inner(), inner, pool);
}

}  // namespace dsctl::engine
