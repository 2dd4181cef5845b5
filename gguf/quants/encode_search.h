// The searches behind the quantised formats: for sixteen groups at once, the scale (and minimum)
// and the codes with the smallest weighted error. The procedures are those of ggml's reference
// (ggml-quants.c), operation by operation in each lane, so that files come out equal to its own.
#pragma once

#include "gguf/quants/encode_lanes.h"
#include "gguf/quants/iq4_nl.h"

namespace dsctl::gguf {
namespace {

/// Below this a group counts as zero.
constexpr float kNothing = 1e-15F;

/// The element of largest magnitude of each group, the first of several, with its sign.
struct Extremum {
  Floats value;
  Ints is_zero;
};

template <int n>
DSCTL_LANES Extremum extremum(const Groups<n>& group) {
  Floats most{};
  Floats value{};
  for (int i = 0; i < n; ++i) {
    const Floats size = magnitude(group.x[i]);
    const Ints is_more = size > most;
    most = choose(is_more, size, most);
    value = choose(is_more, group.x[i], value);
  }
  return {value, most < kNothing};
}

/// Sums over a group for value = scale * code: what a scale and its error follow from.
struct Fit {
  Floats sum_xl;  // sum of weight * x * code
  Floats sum_ll;  // sum of weight * code^2

  DSCTL_LANES void add(Floats weighted_x, Floats weight, Floats code) {
    sum_xl += weighted_x * code;
    sum_ll += weight * code * code;
  }
  DSCTL_LANES Floats scale() const { return choose(sum_ll != 0.0F, sum_xl / sum_ll, Floats{}); }
};

/// value = scale * (code - half_range), codes in [0, 2 * half_range): tries nineteen scales around
/// the one that gives the extremum the lowest code. `codes` are all 0 where the group is zero.
template <int n>
DSCTL_LANES Floats search_scale(const Groups<n>& group, const Groups<n>& weights, int half_range,
                                Groups<n>& codes) {
  const auto half = static_cast<float>(half_range);
  const Extremum peak = extremum(group);
  Floats weighted[n];
  for (int i = 0; i < n; ++i)
    weighted[i] = weights.x[i] * group.x[i];

  Floats inverse = -half / peak.value;
  Fit fit{};
  for (int i = 0; i < n; ++i) {
    codes.x[i] = nearest(inverse * group.x[i], -half, half - 1);
    fit.add(weighted[i], weights.x[i], codes.x[i]);
  }
  Floats scale = fit.scale();
  Floats best = scale * fit.sum_xl;
  for (int step = -9; step <= 9; ++step) {
    if (step == 0) continue;
    inverse = -(half + 0.1F * static_cast<float>(step)) / peak.value;
    Groups<n> tried;
    fit = Fit{};
    for (int i = 0; i < n; ++i) {
      tried.x[i] = nearest(inverse * group.x[i], -half, half - 1);
      fit.add(weighted[i], weights.x[i], tried.x[i]);
    }
    const Ints is_better =
        (fit.sum_ll > 0.0F) & (fit.sum_xl * fit.sum_xl > best * fit.sum_ll) & ~peak.is_zero;
    if (!any(is_better)) continue;
    for (int i = 0; i < n; ++i)
      codes.x[i] = choose(is_better, tried.x[i], codes.x[i]);
    scale = choose(is_better, fit.sum_xl / fit.sum_ll, scale);
    best = choose(is_better, scale * fit.sum_xl, best);
  }
  for (int i = 0; i < n; ++i)
    codes.x[i] = choose(peak.is_zero, Floats{}, codes.x[i] + half);
  return choose(peak.is_zero, Floats{}, scale);
}

/// The same for Q3_K without a matrix (half_range 4, weights x^2): from the first codes, moves one
/// code after another while that helps, five rounds at most.
DSCTL_LANES Floats refine_scale_3bit(const Groups<16>& group, Groups<16>& codes) {
  constexpr float kHalf = 4.0F;
  const Extremum peak = extremum(group);
  const Floats inverse = -kHalf / peak.value;
  Fit fit{};
  Floats weights[16];
  for (int i = 0; i < 16; ++i) {
    codes.x[i] = nearest(inverse * group.x[i], -kHalf, kHalf - 1);
    weights[i] = group.x[i] * group.x[i];
    fit.add(weights[i] * group.x[i], weights[i], codes.x[i]);
  }
  for (int round = 0; round < 5; ++round) {
    Ints has_changed{};
    for (int i = 0; i < 16; ++i) {
      const Floats x = group.x[i];
      const Floats weighted = weights[i] * x;
      Floats others_xl = fit.sum_xl - weighted * codes.x[i];
      Floats others_ll = fit.sum_ll - weights[i] * codes.x[i] * codes.x[i];
      const Floats moved = nearest(x * others_ll / others_xl, -kHalf, kHalf - 1);
      Ints moves = (others_xl > 0.0F) & (moved != codes.x[i]);
      others_xl += weighted * moved;
      others_ll += weights[i] * moved * moved;
      moves &= (others_ll > 0.0F) &
               (others_xl * others_xl * fit.sum_ll > fit.sum_xl * fit.sum_xl * others_ll);
      codes.x[i] = choose(moves, moved, codes.x[i]);
      fit.sum_xl = choose(moves, others_xl, fit.sum_xl);
      fit.sum_ll = choose(moves, others_ll, fit.sum_ll);
      has_changed |= moves;
    }
    if (!any(has_changed)) break;
  }
  for (int i = 0; i < 16; ++i)
    codes.x[i] = choose(peak.is_zero, Floats{}, codes.x[i] + kHalf);
  const Floats scale = choose(fit.sum_ll > 0.0F, fit.sum_xl / fit.sum_ll, Floats{});
  return choose(peak.is_zero, Floats{}, scale);
}

/// The steps of search_scale_min: scales (first + i * step + max_code) / range for i in
/// [0, n_steps].
struct ScaleSteps {
  int max_code = 0;
  float first = 0;
  float step = 0;
  int n_steps = 0;
};

enum class ErrorMeasure { kAbsolute, kSquare };

struct ScaleMin {
  Floats scale;
  Floats min;  // what is subtracted: never negative
};

template <int n>
DSCTL_LANES Floats weighted_error(const Groups<n>& group, const Groups<n>& weights,
                                  const Groups<n>& codes, Floats scale, Floats min,
                                  ErrorMeasure measure) {
  Floats error{};
  for (int i = 0; i < n; ++i) {
    const Floats off = scale * codes.x[i] + min - group.x[i];
    error += weights.x[i] * (measure == ErrorMeasure::kAbsolute ? magnitude(off) : off * off);
  }
  return error;
}

/// value = scale * code - min, codes in [0, max_code]: for each step the codes, then the scale and
/// minimum that fit them best (least squares with weights); the best of all is kept.
template <int n>
DSCTL_LANES ScaleMin search_scale_min(const Groups<n>& group, const Groups<n>& weights,
                                      const ScaleSteps& steps, ErrorMeasure measure,
                                      Groups<n>& codes) {
  Floats min = group.x[0];
  Floats max = group.x[0];
  Floats sum_w = weights.x[0];
  Floats sum_x = sum_w * group.x[0];
  for (int i = 1; i < n; ++i) {
    min = smaller(group.x[i], min);
    max = larger(group.x[i], max);
    sum_w += weights.x[i];
    sum_x += weights.x[i] * group.x[i];
  }
  min = choose(min > 0.0F, Floats{}, min);
  const Floats first_min = min;
  const Ints is_flat = max <= min;
  const auto max_code = static_cast<float>(steps.max_code);

  Floats inverse = max_code / (max - min);
  Floats scale = 1.0F / inverse;
  for (int i = 0; i < n; ++i)
    codes.x[i] = nearest(inverse * (group.x[i] - min), 0.0F, max_code);
  Floats best = weighted_error(group, weights, codes, scale, min, measure);
  for (int step = 0; step <= steps.n_steps; ++step) {
    inverse = (steps.first + steps.step * static_cast<float>(step) + max_code) / (max - min);
    Groups<n> tried;
    Floats sum_l{};
    Floats sum_ll{};
    Floats sum_xl{};
    for (int i = 0; i < n; ++i) {
      const Floats code = nearest(inverse * (group.x[i] - min), 0.0F, max_code);
      tried.x[i] = code;
      const Floats weighted = weights.x[i] * code;
      sum_l += weighted;
      sum_ll += weighted * code;
      sum_xl += weighted * group.x[i];
    }
    const Floats determinant = sum_w * sum_ll - sum_l * sum_l;
    Floats new_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
    Floats new_min = (sum_ll * sum_x - sum_l * sum_xl) / determinant;
    const Ints is_above = new_min > 0.0F;
    new_min = choose(is_above, Floats{}, new_min);
    new_scale = choose(is_above, sum_xl / sum_ll, new_scale);
    const Floats error = weighted_error(group, weights, tried, new_scale, new_min, measure);
    const Ints is_better = (determinant > 0.0F) & (error < best) & ~is_flat;
    if (!any(is_better)) continue;
    for (int i = 0; i < n; ++i)
      codes.x[i] = choose(is_better, tried.x[i], codes.x[i]);
    best = choose(is_better, error, best);
    scale = choose(is_better, new_scale, scale);
    min = choose(is_better, new_min, min);
  }
  for (int i = 0; i < n; ++i)
    codes.x[i] = choose(is_flat, Floats{}, codes.x[i]);
  return {choose(is_flat, Floats{}, scale), -choose(is_flat, first_min, min)};
}

/// value = scale * code for values that are not negative, codes in [0, max_code]: for the scales
/// and minimums of a block. Nine scales, then codes are moved one by one as in refine_scale_3bit.
template <int n>
DSCTL_LANES Floats search_positive_scale(const Groups<n>& group, const Groups<n>& weights,
                                         int largest_code, Groups<n>& codes) {
  const auto max_code = static_cast<float>(largest_code);
  Floats max{};
  for (int i = 0; i < n; ++i)
    max = larger(group.x[i], max);
  const Ints is_zero = max < kNothing;

  Floats inverse = max_code / max;
  Floats best{};
  for (int i = 0; i < n; ++i) {
    const Floats off = group.x[i] - 1.0F / inverse * nearest(inverse * group.x[i], 0, max_code);
    best += weights.x[i] * off * off;
  }
  for (int step = -4; step <= 4; ++step) {
    if (step == 0) continue;
    const Floats tried = (0.1F * static_cast<float>(step) + max_code) / max;
    const Floats scale = 1.0F / tried;
    Floats error{};
    for (int i = 0; i < n; ++i) {
      const Floats off = group.x[i] - scale * nearest(tried * group.x[i], 0, max_code);
      error += weights.x[i] * off * off;
    }
    const Ints is_better = error < best;
    best = choose(is_better, error, best);
    inverse = choose(is_better, tried, inverse);
  }

  Fit fit{};
  for (int i = 0; i < n; ++i) {
    codes.x[i] = nearest(inverse * group.x[i], 0, max_code);
    fit.add(weights.x[i] * group.x[i], weights.x[i], codes.x[i]);
  }
  for (int round = 0; round < 5; ++round) {
    Ints has_changed{};
    for (int i = 0; i < n; ++i) {
      const Floats weighted = weights.x[i] * group.x[i];
      Floats others_xl = fit.sum_xl - weighted * codes.x[i];
      Floats others_ll = fit.sum_ll - weights.x[i] * codes.x[i] * codes.x[i];
      const Floats moved = nearest(group.x[i] * others_ll / others_xl, 0, max_code);
      Ints moves = (others_xl > 0.0F) & (others_ll > 0.0F) & (moved != codes.x[i]);
      others_xl += weighted * moved;
      others_ll += weights.x[i] * moved * moved;
      moves &= others_xl * others_xl * fit.sum_ll > fit.sum_xl * fit.sum_xl * others_ll;
      codes.x[i] = choose(moves, moved, codes.x[i]);
      fit.sum_xl = choose(moves, others_xl, fit.sum_xl);
      fit.sum_ll = choose(moves, others_ll, fit.sum_ll);
      has_changed |= moves;
    }
    if (!any(has_changed)) break;
  }
  for (int i = 0; i < n; ++i)
    codes.x[i] = choose(is_zero, Floats{}, codes.x[i]);
  const Floats scale = choose(fit.sum_ll > 0.0F, fit.sum_xl / fit.sum_ll, Floats{});
  return choose(is_zero, Floats{}, scale);
}

/// The code of the nearest value of the 4-bit table, ties upwards, and that value.
struct TableEntry {
  Floats code;
  Floats value;
};

DSCTL_LANES TableEntry nearest_in_table(Floats x) {
  TableEntry entry{Floats{}, static_cast<float>(iq4_value(0))};
  const Floats doubled = x + x;  // midpoints between integers, doubled, are exact
  for (int code = 1; code < 16; ++code) {
    const int low = iq4_value(code - 1);
    const int high = iq4_value(code);
    const Ints reaches = doubled >= static_cast<float>(low + high);
    entry.code = choose(reaches, static_cast<float>(code), entry.code);
    entry.value = choose(reaches, static_cast<float>(high), entry.value);
  }
  return entry;
}

DSCTL_LANES Fit fit_in_table(const Groups<32>& group, const Groups<32>& weights, Floats inverse) {
  Fit fit{};
  for (int i = 0; i < 32; ++i) {
    const Floats value = nearest_in_table(inverse * group.x[i]).value;
    fit.sum_xl += weights.x[i] * value * group.x[i];
    fit.sum_ll += weights.x[i] * value * value;
  }
  return fit;
}

/// value = scale * table[code]: tries fifteen scales that give the extremum the table's end.
DSCTL_LANES Floats search_table_scale(const Groups<32>& group, const Groups<32>& weights) {
  constexpr int kTries = 7;
  const Extremum peak = extremum(group);
  const auto lowest = static_cast<float>(iq4_value(0));
  Fit fit = fit_in_table(group, weights, 1.0F / (-peak.value / lowest));
  Floats scale = choose(fit.sum_ll > 0.0F, fit.sum_xl / fit.sum_ll, Floats{});
  Floats best = scale * fit.sum_xl;
  for (int step = -kTries; step <= kTries; ++step) {
    fit = fit_in_table(group, weights, (static_cast<float>(step) + lowest) / peak.value);
    const Ints is_better = (fit.sum_ll > 0.0F) & (fit.sum_xl * fit.sum_xl > best * fit.sum_ll);
    scale = choose(is_better, fit.sum_xl / fit.sum_ll, scale);
    best = choose(is_better, scale * fit.sum_xl, best);
  }
  return choose(peak.is_zero, Floats{}, scale);
}

}  // namespace
}  // namespace dsctl::gguf
