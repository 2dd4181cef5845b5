// Attention of a tile of query rows, over the sixteen lanes of simd_avx512.h or simd_avx2.h.
//
// Scores: a lane is a key (keys lie as (head_dim, 16)), summed over the dimension ascending.
// Values: a lane is a dimension, summed over the keys ascending. Masked keys weigh exactly zero, so
// a row's bits do not depend on which other rows share its tile. Chunks of 256 keys at fixed
// positions yield (maximum, sum, weighted values) and are merged in order.
#pragma once

#include <cstddef>
#include <cstdint>

#include "engine/cpu/fast/isa.h"
#include "engine/cpu/fast/math_kernels.h"

namespace dsctl::engine::fast {
namespace {

/// Below every score, and finite so that differences of two are no NaN.
constexpr float kNoScore = -1e30f;
constexpr int kChunkGroups = kChunkKeys / kKeyLanes;

template <bool kHalf>
DSCTL_SIMD Floats load_kv(const std::byte* pages, int64_t element) {
  if constexpr (kHalf) return load_half(pages + element * 2);
  return load(reinterpret_cast<const float*>(pages) + element);
}

DSCTL_SIMD Floats lane_numbers() {
  alignas(64) static constexpr float kNumbers[16] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                     8, 9, 10, 11, 12, 13, 14, 15};
  return load(kNumbers);
}

void start_state(float* state, int n_rows, int head_dim) {
  for (int r = 0; r < n_rows; ++r)
    state[r] = kNoScore;
  const int64_t n = attention_state_size(n_rows, head_dim);
  for (int64_t i = n_rows; i < n; ++i)
    state[i] = 0.0f;
}

/// e^x of one value by the vector code, so that every path has the same bits.
DSCTL_SIMD float exp_one(float x) {
  float lanes[16];
  store(lanes, exp(broadcast(x)));
  return lanes[0];
}

/// The factors of the running and of the new values when their maxima meet.
struct MergeScale {
  float old_scale;
  float new_scale;
};
DSCTL_SIMD MergeScale merge_row(float& max, float& sum, float new_max, float new_sum) {
  const float highest = max > new_max ? max : new_max;
  const MergeScale scale{exp_one(max - highest), exp_one(new_max - highest)};
  max = highest;
  sum = __builtin_fmaf(new_sum, scale.new_scale, sum * scale.old_scale);
  return scale;
}

DSCTL_SIMD void merge_values(float* values, Floats fresh, const MergeScale& scale) {
  const Floats old = mul(load(values), broadcast(scale.old_scale));
  store(values, fma(fresh, broadcast(scale.new_scale), old));
}

/// Keys [begin, end) of a chunk, counted from its start, and where its groups of 16 lie.
struct ChunkRange {
  int begin = 0;  // multiples of 16
  int end = 0;
  int64_t group_elements[kChunkGroups];
};

DSCTL_SIMD ChunkRange chunk_range(const AttentionTile& tile, int chunk) {
  int first = tile.first_key[0];
  int last = tile.last_key[0];
  for (int r = 1; r < tile.n_rows; ++r) {
    if (tile.first_key[r] < first) first = tile.first_key[r];
    if (tile.last_key[r] > last) last = tile.last_key[r];
  }
  const int start = chunk * kChunkKeys;
  ChunkRange range;
  range.begin = first > start ? (first - start) / kKeyLanes * kKeyLanes : 0;
  const int n = last + 1 - start < kChunkKeys ? last + 1 - start : kChunkKeys;
  range.end = n <= range.begin ? range.begin : (n + kKeyLanes - 1) / kKeyLanes * kKeyLanes;
  for (int key = range.begin; key < range.end; key += kKeyLanes) {
    const int position = start + key;
    const int64_t block = tile.block_table[position / tile.block_size];
    range.group_elements[key / kKeyLanes] =
        block * tile.block_stride + tile.head_offset +
        static_cast<int64_t>(position % tile.block_size) * tile.head_dim;
  }
  return range;
}

/// scores[r][key] for kGroups groups of 16 keys. `q` is (head_dim, R), scaled.
template <bool kHalf, int R, int kGroups>
DSCTL_SIMD void score_groups(const AttentionTile& tile, const int64_t* elements, const float* q,
                             float* scores) {
  Floats sums[R][kGroups];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g)
      sums[r][g] = zero_floats();
  }
  for (int d = 0; d < tile.head_dim; ++d) {
    Floats keys[kGroups];
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      keys[g] = load_kv<kHalf>(tile.k, elements[g] + d * kKeyLanes);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats value = broadcast(q[d * R + r]);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g)
        sums[r][g] = fma(keys[g], value, sums[r][g]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g)
      store(scores + r * kChunkKeys + g * kKeyLanes, sums[r][g]);
  }
}

/// Scores of a row to weights e^(score - max), in place; masked keys get 0. Returns max and sum.
struct RowSoftmax {
  float max;
  float sum;
};
DSCTL_SIMD RowSoftmax softmax_row(const AttentionTile& tile, int row, int start,
                                  const ChunkRange& range, float* scores) {
  const auto first = static_cast<float>(tile.first_key[row] - start);
  const auto end = static_cast<float>(tile.last_key[row] + 1 - start);
  const Floats lowest = broadcast(kNoScore);
  const auto mask = [&](Floats values, int key, Floats masked) {
    const Floats position = add(lane_numbers(), broadcast(static_cast<float>(key)));
    values = select_less(position, broadcast(first), masked, values);
    return select_less(position, broadcast(end), values, masked);
  };
  Floats max_lane = lowest;
  for (int key = range.begin; key < range.end; key += kKeyLanes) {
    Floats score = load(scores + key);
    if (tile.softcap > 0.0f) {
      const Floats cap = broadcast(tile.softcap);
      score = mul(cap, tanh(div(score, cap)));
    }
    score = mask(score, key, lowest);
    store(scores + key, score);
    max_lane = max(max_lane, score);
  }
  const float row_max = max_lanes(max_lane);
  const Floats shift = broadcast(row_max);
  Floats sum = zero_floats();
  for (int key = range.begin; key < range.end; key += kKeyLanes) {
    const Floats weight = mask(exp(sub(load(scores + key), shift)), key, zero_floats());
    store(scores + key, weight);
    sum = add(sum, weight);
  }
  return {row_max, sum_lanes(sum)};
}

/// Adds the weighted values of kVectors x 16 dimensions to the state.
template <bool kHalf, int R, int kVectors>
DSCTL_SIMD void add_values(const AttentionTile& tile, const ChunkRange& range, int first_key,
                           int last_key, int dim, const float* weights, const MergeScale* scales,
                           float* values) {
  Floats sums[R][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i)
      sums[r][i] = zero_floats();
  }
  for (int key = first_key; key <= last_key; ++key) {
    const int64_t element = range.group_elements[key / kKeyLanes] +
                            static_cast<int64_t>(key % kKeyLanes) * tile.head_dim + dim;
    Floats v[kVectors];
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i)
      v[i] = load_kv<kHalf>(tile.v, element + i * 16);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const Floats weight = broadcast(weights[r * kChunkKeys + key]);
#pragma GCC unroll 2
      for (int i = 0; i < kVectors; ++i)
        sums[r][i] = fma(v[i], weight, sums[r][i]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) {
      merge_values(values + r * tile.head_dim + dim + i * 16, sums[r][i], scales[r]);
    }
  }
}

template <bool kHalf, int R>
void attend_rows(const AttentionTile& tile, int chunk_begin, int chunk_end, float* state,
                 float* scratch) {
  const int head_dim = tile.head_dim;
  float* q = scratch;                      // (head_dim, R)
  float* scores = scratch + R * head_dim;  // (R, kChunkKeys)
  float* maxima = state;                   // (R)
  float* sums = state + R;                 // (R)
  float* values = state + 2 * R;           // (R, head_dim)
  for (int r = 0; r < R; ++r) {
    for (int d = 0; d < head_dim; ++d)
      q[d * R + r] = tile.q[r][d] * tile.scale;
  }
  for (int chunk = chunk_begin; chunk < chunk_end; ++chunk) {
    const int start = chunk * kChunkKeys;
    const ChunkRange range = chunk_range(tile, chunk);
    if (range.begin >= range.end) continue;
    int key = range.begin;
    for (; key + 2 * kKeyLanes <= range.end; key += 2 * kKeyLanes) {
      score_groups<kHalf, R, 2>(tile, range.group_elements + key / kKeyLanes, q, scores + key);
    }
    if (key < range.end) {
      score_groups<kHalf, R, 1>(tile, range.group_elements + key / kKeyLanes, q, scores + key);
    }
    MergeScale scales[R];
    // Only keys that some row of the tile sees: the rest may never have been written.
    int first_key = kChunkKeys;
    int last_key = -1;
    for (int r = 0; r < R; ++r) {
      const RowSoftmax row = softmax_row(tile, r, start, range, scores + r * kChunkKeys);
      scales[r] = merge_row(maxima[r], sums[r], row.max, row.sum);
      const int first = tile.first_key[r] > start ? tile.first_key[r] - start : 0;
      const int last =
          tile.last_key[r] - start < kChunkKeys ? tile.last_key[r] - start : kChunkKeys - 1;
      if (first < first_key) first_key = first;
      if (last > last_key) last_key = last;
    }
    int dim = 0;
    for (; dim + 32 <= head_dim; dim += 32) {
      add_values<kHalf, R, 2>(tile, range, first_key, last_key, dim, scores, scales, values);
    }
    if (dim < head_dim) {
      add_values<kHalf, R, 1>(tile, range, first_key, last_key, dim, scores, scales, values);
    }
  }
}

template <bool kHalf>
void attend(const AttentionTile& tile, int chunk_begin, int chunk_end, float* state,
            float* scratch) {
  switch (tile.n_rows) {
    case 1:
      return attend_rows<kHalf, 1>(tile, chunk_begin, chunk_end, state, scratch);
    case 2:
      return attend_rows<kHalf, 2>(tile, chunk_begin, chunk_end, state, scratch);
    case 3:
      return attend_rows<kHalf, 3>(tile, chunk_begin, chunk_end, state, scratch);
    case 4:
      return attend_rows<kHalf, 4>(tile, chunk_begin, chunk_end, state, scratch);
    case 5:
      return attend_rows<kHalf, 5>(tile, chunk_begin, chunk_end, state, scratch);
    case 6:
      return attend_rows<kHalf, 6>(tile, chunk_begin, chunk_end, state, scratch);
    case 7:
      return attend_rows<kHalf, 7>(tile, chunk_begin, chunk_end, state, scratch);
    default:
      return attend_rows<kHalf, 8>(tile, chunk_begin, chunk_end, state, scratch);
  }
}

void merge_states(float* state, const float* other, int n_rows, int head_dim) {
  for (int r = 0; r < n_rows; ++r) {
    const MergeScale scale = merge_row(state[r], state[n_rows + r], other[r], other[n_rows + r]);
    const int64_t row = 2 * n_rows + static_cast<int64_t>(r) * head_dim;
    for (int d = 0; d < head_dim; d += 16)
      merge_values(state + row + d, load(other + row + d), scale);
  }
}

void finish_row(float* out, const float* state, int row, int n_rows, int head_dim) {
  const Floats inverse = div(broadcast(1.0f), broadcast(state[n_rows + row]));
  const float* values = state + 2 * n_rows + static_cast<int64_t>(row) * head_dim;
  for (int d = 0; d < head_dim; d += 16)
    store(out + d, mul(load(values + d), inverse));
}

}  // namespace
}  // namespace dsctl::engine::fast
