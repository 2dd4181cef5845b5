// Latent attention of a tile of heads, over the sixteen lanes of simd_avx512.h or simd_avx2.h. The
// includer sets the register tiles: kScoreKeys, kValueHeads and kValueVectors.
//
// Scores: a lane is a head, summed over the dimension ascending; a row of the cache is read once
// for all heads. Values: a lane is a dimension, summed over the keys ascending.
#pragma once

#include <cstdint>

#include "engine/cpu/fast/isa.h"
#include "engine/cpu/fast/math_kernels.h"

namespace dsctl::engine::fast {
namespace {

/// A chunk's keys, where they lie.
struct MlaKeys {
  int n = 0;
  const float* rows[kMlaChunkKeys];
};

DSCTL_SIMD MlaKeys keys_of(const MlaTile& tile, int chunk) {
  MlaKeys keys;
  const int first = chunk * kMlaChunkKeys;
  const int left = tile.last_key + 1 - first;
  keys.n = left < kMlaChunkKeys ? left : kMlaChunkKeys;
  for (int i = 0; i < keys.n; ++i) {
    const int position = first + i;
    const int64_t slot =
        static_cast<int64_t>(tile.block_table[position / tile.block_size]) * tile.block_size +
        position % tile.block_size;
    keys.rows[i] = tile.rows + slot * tile.n_cols;
  }
  return keys;
}

template <int kKeys>
DSCTL_SIMD void score_keys(const MlaTile& tile, const float* const* rows, float* scores) {
  Floats sums[kKeys];
  for (int k = 0; k < kKeys; ++k)
    sums[k] = zero_floats();
  for (int i = 0; i < tile.n_cols; ++i) {
    const Floats q = load(tile.q + static_cast<int64_t>(i) * kMlaHeads);
    for (int k = 0; k < kKeys; ++k)
      sums[k] = fma(q, broadcast(rows[k][i]), sums[k]);
  }
  for (int k = 0; k < kKeys; ++k)
    store(scores + k * kMlaHeads, mul(sums[k], broadcast(tile.scale)));
}

/// values (heads, latent_dim) = sum of weight times latent, for kHeads heads and kVectors vectors.
template <int kHeads, int kVectors>
DSCTL_SIMD void weigh(const MlaKeys& keys, const float* weights, int latent_dim, int head, int col,
                      float* values) {
  Floats sums[kHeads][kVectors];
  for (int h = 0; h < kHeads; ++h) {
    for (int v = 0; v < kVectors; ++v)
      sums[h][v] = zero_floats();
  }
  for (int k = 0; k < keys.n; ++k) {
    Floats latent[kVectors];
    for (int v = 0; v < kVectors; ++v)
      latent[v] = load(keys.rows[k] + col + v * 16);
    for (int h = 0; h < kHeads; ++h) {
      const Floats weight = broadcast(weights[k * kMlaHeads + head + h]);
      for (int v = 0; v < kVectors; ++v)
        sums[h][v] = fma(weight, latent[v], sums[h][v]);
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int v = 0; v < kVectors; ++v)
      store(values + static_cast<int64_t>(head + h) * latent_dim + col + v * 16, sums[h][v]);
  }
}

void attend_chunk(const MlaTile& tile, int chunk, float* state, float* scratch) {
  const MlaKeys keys = keys_of(tile, chunk);
  int k = 0;
  for (; k + kScoreKeys <= keys.n; k += kScoreKeys)
    score_keys<kScoreKeys>(tile, keys.rows + k, scratch + k * kMlaHeads);
  for (; k < keys.n; ++k)
    score_keys<1>(tile, keys.rows + k, scratch + k * kMlaHeads);

  Floats highest = load(scratch);
  for (k = 1; k < keys.n; ++k)
    highest = max(highest, load(scratch + k * kMlaHeads));
  Floats sum = zero_floats();
  for (k = 0; k < keys.n; ++k) {
    const Floats weight = exp(sub(load(scratch + k * kMlaHeads), highest));
    store(scratch + k * kMlaHeads, weight);
    sum = add(sum, weight);
  }
  store(state, highest);
  store(state + kMlaHeads, sum);
  float* values = state + 2 * kMlaHeads;
  for (int head = 0; head < kMlaHeads; head += kValueHeads) {
    int col = 0;
    for (; col + 16 * kValueVectors <= tile.latent_dim; col += 16 * kValueVectors)
      weigh<kValueHeads, kValueVectors>(keys, scratch, tile.latent_dim, head, col, values);
    for (; col < tile.latent_dim; col += 16)
      weigh<kValueHeads, 1>(keys, scratch, tile.latent_dim, head, col, values);
  }
}

void merge_chunks(float* state, const float* other, int latent_dim) {
  const Floats highest = max(load(state), load(other));
  const Floats old_scale = exp(sub(load(state), highest));
  const Floats new_scale = exp(sub(load(other), highest));
  float old_scales[kMlaHeads];
  float new_scales[kMlaHeads];
  store(old_scales, old_scale);
  store(new_scales, new_scale);
  store(state, highest);
  const Floats old_sum = mul(load(state + kMlaHeads), old_scale);
  store(state + kMlaHeads, fma(load(other + kMlaHeads), new_scale, old_sum));
  for (int h = 0; h < kMlaHeads; ++h) {
    float* values = state + 2 * kMlaHeads + static_cast<int64_t>(h) * latent_dim;
    const float* fresh = other + 2 * kMlaHeads + static_cast<int64_t>(h) * latent_dim;
    for (int i = 0; i < latent_dim; i += 16) {
      const Floats old = mul(load(values + i), broadcast(old_scales[h]));
      store(values + i, fma(load(fresh + i), broadcast(new_scales[h]), old));
    }
  }
}

}  // namespace
}  // namespace dsctl::engine::fast
