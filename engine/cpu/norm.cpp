#include "engine/cpu/norm.h"

#include <cassert>
#include <cmath>

#include "engine/cpu/linear.h"

namespace dsctl::engine {

void rmsnorm(float* y, const float* x, const float* weight, int n, float eps) {
  const float mean = dot(x, x, n) / static_cast<float>(n);
  const float scale = 1.0f / std::sqrt(mean + eps);
  for (int i = 0; i < n; ++i)
    y[i] = x[i] * scale * weight[i];
}

void add_reference(const AddArgs& args, ThreadPool& pool) {
  assert(args.x.n_rows == args.y.n_rows && args.x.n_cols == args.y.n_cols);
  const int dim = args.x.n_cols;
  pool.parallel_for(args.x.n_rows, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    for (int64_t t = begin; t < end; ++t) {
      float* x = args.x.row(t);
      float* y = args.y.row(t);
      if (args.bias != nullptr) {
        for (int i = 0; i < dim; ++i)
          y[i] += args.bias[i];
      }
      if (args.post_norm != nullptr) rmsnorm(y, y, args.post_norm, dim, args.eps);
      for (int i = 0; i < dim; ++i)
        x[i] += y[i];
    }
  });
}

}  // namespace dsctl::engine
