// Loops over one token's values, over the sixteen lanes of simd_avx512.h or simd_avx2.h.
#pragma once

#include <cstdint>

#include "engine/cpu/fast/isa.h"
#include "engine/cpu/fast/math_kernels.h"

namespace dsctl::engine::fast {
namespace {

constexpr int kLanes = 16;

/// Calls body(i, n) for pieces of up to 16 values; n is 16 but for the last.
template <typename Body>
DSCTL_SIMD void for_each_piece(int64_t n_values, Body body) {
  int64_t i = 0;
  for (; i + kLanes <= n_values; i += kLanes)
    body(i, kLanes);
  if (i < n_values) body(i, static_cast<int>(n_values - i));
}

DSCTL_SIMD Floats load_piece(const float* from, int n) {
  return n == kLanes ? load(from) : load_first(from, n);
}
DSCTL_SIMD void store_piece(float* to, Floats values, int n) {
  if (n == kLanes) {
    store(to, values);
  } else {
    store_first(to, values, n);
  }
}

void rmsnorm(float* y, const float* x, const float* weight, int n, float eps) {
  Floats squares = zero_floats();
  for_each_piece(n, [&](int64_t i, int m) {
    const Floats v = load_piece(x + i, m);
    squares = fma(v, v, squares);
  });
  const float mean = sum_lanes(squares) / static_cast<float>(n);
  const Floats scale = broadcast(1.0f / __builtin_sqrtf(mean + eps));
  for_each_piece(n, [&](int64_t i, int m) {
    const Floats scaled = mul(load_piece(x + i, m), scale);
    store_piece(y + i, mul(scaled, load_piece(weight + i, m)), m);
  });
}

void gated_silu(float* y, const float* gate, const float* up, int64_t n) {
  for_each_piece(n, [&](int64_t i, int m) {
    store_piece(y + i, mul(silu(load_piece(gate + i, m)), load_piece(up + i, m)), m);
  });
}

void gated_gelu(float* y, const float* gate, const float* up, int64_t n) {
  for_each_piece(n, [&](int64_t i, int m) {
    store_piece(y + i, mul(gelu_tanh(load_piece(gate + i, m)), load_piece(up + i, m)), m);
  });
}

void add_values(float* x, const float* y, int64_t n) {
  for_each_piece(n, [&](int64_t i, int m) {
    store_piece(x + i, add(load_piece(x + i, m), load_piece(y + i, m)), m);
  });
}

void rotate_norm(float* head, const float* cos_sin, int n_pairs) {
  for (int i = 0; i < n_pairs; ++i) {
    const float a = head[2 * i];
    const float b = head[2 * i + 1];
    head[2 * i] = a * cos_sin[2 * i] - b * cos_sin[2 * i + 1];
    head[2 * i + 1] = a * cos_sin[2 * i + 1] + b * cos_sin[2 * i];
  }
}

void rotate_neox(float* head, const float* cos_sin, int n_pairs) {
  float* __restrict low = head;
  float* __restrict high = head + n_pairs;
  const float* __restrict table = cos_sin;
  for (int i = 0; i < n_pairs; ++i) {
    const float a = low[i];
    const float b = high[i];
    low[i] = a * table[2 * i] - b * table[2 * i + 1];
    high[i] = a * table[2 * i + 1] + b * table[2 * i];
  }
}

void to_half(uint16_t* to, const float* from, int64_t n) {
  for (int64_t i = 0; i < n; i += kLanes)
    store_half(to + i, load(from + i));
}

}  // namespace
}  // namespace dsctl::engine::fast
