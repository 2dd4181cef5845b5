// Rope: the parameters of rotary position embedding, resolved to one frequency for each pair, so
// that every device applies all scaling kinds with the same few lines.
#pragma once

#include <span>
#include <vector>

namespace dsctl::engine {

/// Which elements of a head form a pair: (2i, 2i + 1), or (i, i + n_dims / 2).
enum class RopeStyle { kNorm, kNeox };

/// How the frequencies of a model are stretched, as its keys say it (spec: architectures, RoPE).
struct RopeParams {
  RopeStyle style = RopeStyle::kNeox;
  int n_dims = 0;  // rotated elements of a head, even
  double freq_base = 10000.0;
  double freq_scale = 1.0;                // 1 / factor of linear and yarn scaling
  double ext_factor = 0.0;                // 1: yarn
  double attn_factor = 1.0;               // multiplies cosine and sine
  double beta_fast = 32.0;                // yarn
  double beta_slow = 1.0;                 // yarn
  int n_original_context = 0;             // yarn
  std::span<const float> freq_factors{};  // (n_dims / 2) divide the frequencies, or empty
};

/// At position p, pair i turns by p * frequencies[i]; cosine and sine are times magnitude.
struct Rope {
  RopeStyle style = RopeStyle::kNeox;
  int n_dims = 0;
  std::vector<double> frequencies;  // (n_dims / 2)
  double magnitude = 1.0;
};

/// Resolves `params`: none, linear, yarn (ggml's formulas), per-pair factors (Llama 3, longrope).
Rope make_rope(const RopeParams& params);

}  // namespace dsctl::engine
