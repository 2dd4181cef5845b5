// Candidates: the tokens still in the running for one draw, and the samplers that thin them out.
// Definitions: spec/sampling.md section 1 (those of llama.cpp).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/philox.h"

namespace dsctl::engine {

struct Candidate {
  int32_t id = 0;
  float logit = 0.0f;
};

/// The order that "best first" means everywhere: higher logit, then lower id.
inline bool is_better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

/// Never empty, no -inf and no NaN among the logits.
struct Candidates {
  std::vector<Candidate> items;
  bool sorted = false;  // best first
};

/// e^x for x <= 0 in f32, relative error under 2e-7, never under 1e-38. Plain arithmetic, so that a
/// loop over the vocabulary vectorises and every machine gets the same bits.
float exp_f32(float x);

/// Keeps the `k` best, sorted; k <= 0 keeps all.
void keep_top_k(Candidates& candidates, int k);

/// Drops what is more than `n` standard deviations below the best.
void keep_top_n_sigma(Candidates& candidates, float n);

/// Keeps the most typical tokens (surprise nearest to the entropy) until their probability exceeds
/// `p`; p >= 1 keeps all.
void keep_typical(Candidates& candidates, float p);

/// Keeps the best until their probability reaches `p`, at least one; p >= 1 keeps all.
void keep_top_p(Candidates& candidates, float p);

/// Keeps the tokens with at least `p` times the best's probability; p <= 0 keeps all.
void keep_min_p(Candidates& candidates, float p);

/// Exclude Top Choices: of the tokens with probability >= `threshold` only the least likely stays.
void exclude_top_choices(Candidates& candidates, float threshold);

/// Divides by `temperature` (> 0) or, with range > 0, by one between temperature - range and
/// temperature + range that grows with the entropy to the power of `exponent`.
void apply_temperature(Candidates& candidates, float temperature, float range, float exponent);

/// Draws a token by an exponential race: the candidate with the least E_i / p_i wins, E_i from the
/// random word of its id. The result does not depend on the order of the candidates, nor on others
/// that were dropped before. Returns its index.
size_t draw(const Candidates& candidates, TokenRandom& random);

/// The probability of the candidate at `idx` among them all.
double probability_of(const Candidates& candidates, size_t idx);

/// Mirostat 1: keeps the k best for the wanted surprise `mu`, estimated from the 100 best.
void keep_mirostat_v1(Candidates& candidates, float mu, int vocab_size);

/// Mirostat 2: drops tokens whose surprise -log2 p exceeds `mu`, but never all.
void keep_mirostat_v2(Candidates& candidates, float mu);

}  // namespace dsctl::engine
