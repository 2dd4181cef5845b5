// Root-mean-square normalisation on the CPU.
#pragma once

#include "engine/cpu/thread_pool.h"
#include "engine/tensor.h"

namespace dsctl::engine {

/// y = x / sqrt(mean(x^2) + eps) * weight over `n` values; the mean in f32 in the order of dot().
/// `y` may be `x`.
void rmsnorm(float* y, const float* x, const float* weight, int n, float eps);

/// What is added to the residual stream: x += y, or x += rmsnorm(y) when post_norm is given.
struct AddArgs {
  MutableRows x;                     // (n_tokens, dim) the residual stream
  MutableRows y;                     // (n_tokens, dim) a branch's output; scratch afterwards
  const float* bias = nullptr;       // (dim) added to y first, or null
  const float* post_norm = nullptr;  // (dim) or null
  float eps = 0.0f;
};
void add_reference(const AddArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine
