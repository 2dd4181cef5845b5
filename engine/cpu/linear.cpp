#include "engine/cpu/linear.h"

#include <algorithm>
#include <cassert>
#include <vector>

#include "engine/cpu/ffn.h"
#include "engine/cpu/norm.h"
#include "gguf/quants/all.h"

namespace dsctl::engine {
namespace {

class ReferenceWeight final : public LinearWeight {
 public:
  explicit ReferenceWeight(const MatrixView& view) : matrix(view) {}
  int64_t n_rows() const override { return matrix.n_rows; }
  int64_t n_cols() const override { return matrix.n_cols; }
  size_t owned_bytes() const override { return 0; }

  const MatrixView matrix;
};

class ReferenceInput final : public LinearInput {
 public:
  ReferenceInput(int max_tokens, int64_t max_cols, int n_threads)
      : values_(static_cast<size_t>(max_tokens * max_cols)),
        weight_rows_(static_cast<size_t>(n_threads * max_cols)),
        max_cols_(max_cols) {}

  void assign(const Rows& x, ThreadPool& pool) override {
    resize(x);
    pool.parallel_for(x.n_rows, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t)
        std::copy_n(x.row(t), x.n_cols, row(t));
    });
  }

  void assign_rmsnorm(const Rows& x, const float* weight, float eps, ThreadPool& pool) override {
    resize(x);
    pool.parallel_for(x.n_rows, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t)
        rmsnorm(row(t), x.row(t), weight, x.n_cols, eps);
    });
  }

  void assign_gated(const Rows& gate, const Rows& up, Activation activation,
                    ThreadPool& pool) override {
    resize(gate);
    pool.parallel_for(gate.n_rows, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t)
        gated(row(t), gate.row(t), up.row(t), gate.n_cols, activation);
    });
  }

  void assign_rows(const LinearInput& from, std::span<const int32_t> row_idx,
                   ThreadPool& pool) override {
    const auto& source = static_cast<const ReferenceInput&>(from);
    resize({.n_rows = static_cast<int>(row_idx.size()), .n_cols = source.n_cols_});
    pool.parallel_for(n_rows_, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
      for (int64_t t = begin; t < end; ++t) {
        const int64_t other = row_idx[static_cast<size_t>(t)];
        std::copy_n(source.values_.data() + other * n_cols_, n_cols_, row(t));
      }
    });
  }

  void group(std::span<const int32_t> starts) override {
    group_starts_.assign(starts.begin(), starts.end());
  }

  int32_t group_begin(int group) const { return group_starts_[static_cast<size_t>(group)]; }
  int32_t group_end(int group) const { return group_starts_[static_cast<size_t>(group) + 1]; }
  int n_cols() const { return n_cols_; }
  float* row(int64_t row_idx) { return values_.data() + row_idx * n_cols_; }
  /// Where a thread dequantises one row of a weight.
  float* weight_row(int thread_idx) { return weight_rows_.data() + thread_idx * max_cols_; }

 private:
  void resize(const Rows& x) {
    n_rows_ = x.n_rows;
    n_cols_ = x.n_cols;
    group_starts_.assign({0, n_rows_});
    assert(static_cast<size_t>(n_rows_) * static_cast<size_t>(n_cols_) <= values_.size());
    assert(n_cols_ <= max_cols_);
  }

  std::vector<float> values_;
  std::vector<float> weight_rows_;
  std::vector<int32_t> group_starts_;
  int64_t max_cols_;
  int n_rows_ = 0;
  int n_cols_ = 0;
};

}  // namespace

float dot(const float* a, const float* b, int64_t n) {
  constexpr int kLanes = 16;
  float partial[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane)
      partial[lane] += a[i + lane] * b[i + lane];
  }
  for (int lane = 0; i < n; ++i, ++lane)
    partial[lane] += a[i] * b[i];
  for (int half = kLanes / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane)
      partial[lane] += partial[lane + half];
  }
  return partial[0];
}

std::unique_ptr<LinearWeight> make_reference_weight(const MatrixView& matrix) {
  return std::make_unique<ReferenceWeight>(matrix);
}

std::unique_ptr<LinearInput> make_reference_input(int max_tokens, int64_t max_cols, int n_threads) {
  return std::make_unique<ReferenceInput>(max_tokens, max_cols, n_threads);
}

void linear_reference(LinearInput& input, std::span<const LinearOutput> outputs, ThreadPool& pool) {
  auto& x = static_cast<ReferenceInput&>(input);
  for (const LinearOutput& output : outputs) {
    const MatrixView& matrix = static_cast<const ReferenceWeight*>(output.weight)->matrix;
    assert(matrix.n_cols == x.n_cols());
    pool.parallel_for(matrix.n_rows, 4, [&](int64_t begin, int64_t end, int thread_idx) {
      float* weights = x.weight_row(thread_idx);
      for (int64_t r = begin; r < end; ++r) {
        gguf::dequantize_row(matrix.dtype, matrix.row(r), weights, matrix.n_cols);
        const float bias = output.bias != nullptr ? output.bias[r] : 0.0f;
        for (int64_t t = x.group_begin(output.group); t < x.group_end(output.group); ++t)
          output.y[t * output.y_stride + r] = dot(weights, x.row(t), matrix.n_cols) + bias;
      }
    });
  }
}

}  // namespace dsctl::engine
