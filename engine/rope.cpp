#include "engine/rope.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

namespace dsctl::engine {
namespace {

/// The pair index whose wavelength makes `n_turns` turns within the original context.
double yarn_pair(const RopeParams& params, double n_turns) {
  return params.n_dims * std::log(params.n_original_context / (n_turns * 2.0 * std::numbers::pi)) /
         (2.0 * std::log(params.freq_base));
}

}  // namespace

Rope make_rope(const RopeParams& params) {
  const int n_pairs = params.n_dims / 2;
  assert(params.freq_factors.empty() || params.freq_factors.size() == static_cast<size_t>(n_pairs));
  Rope rope;
  rope.style = params.style;
  rope.n_dims = params.n_dims;
  rope.magnitude = params.attn_factor;

  // YaRN keeps the pairs before `low` (fast ones), interpolates those after `high`, and ramps.
  double low = 0.0;
  double high = 0.0;
  const bool yarn = params.ext_factor != 0.0;
  if (yarn) {
    low = std::max(0.0, std::floor(yarn_pair(params, params.beta_fast)));
    high = std::min(params.n_dims - 1.0, std::ceil(yarn_pair(params, params.beta_slow)));
    rope.magnitude *= 1.0 + 0.1 * std::log(1.0 / params.freq_scale);
  }
  for (int i = 0; i < n_pairs; ++i) {
    double plain = std::pow(params.freq_base, -2.0 * i / params.n_dims);
    if (!params.freq_factors.empty()) plain /= params.freq_factors[static_cast<size_t>(i)];
    const double interpolated = params.freq_scale * plain;
    double mix = 0.0;
    if (yarn) {
      const double ramp = 1.0 - std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0);
      mix = ramp * params.ext_factor;
    }
    rope.frequencies.push_back(interpolated * (1.0 - mix) + plain * mix);
  }
  return rope;
}

}  // namespace dsctl::engine
