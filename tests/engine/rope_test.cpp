#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/cpu/rope.h"
#include "engine/rope.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

RopeParams params_of(const nlohmann::json& vector, const std::vector<float>& factors) {
  RopeParams params;
  params.style = vector["style"] == "NORM" ? RopeStyle::kNorm : RopeStyle::kNeox;
  params.n_dims = vector["n_dims"];
  params.freq_base = vector["freq_base"];
  params.freq_scale = vector["freq_scale"];
  params.ext_factor = vector["ext_factor"];
  params.attn_factor = vector["attn_factor"];
  params.beta_fast = vector["beta_fast"];
  params.beta_slow = vector["beta_slow"];
  params.n_original_context = vector["n_ctx_orig"];
  params.freq_factors = factors;
  return params;
}

/// ggml multiplies the angle by b^(-2/d) again and again in f32, so it drifts with the position
/// while ours, in f64, does not (spec: architectures, section 2).
double tolerance_at(int position) {
  if (position <= 7) return 2e-6;
  return position <= 1000 ? 2e-4 : 1.5e-2;
}

}  // namespace

TEST_CASE("Rope of every style and scaling kind turns a head as ggml does") {
  const auto path = tests::shared_dir() / "data/vectors/rope_vectors.json";
  std::ifstream file(path);
  if (!file) {
    WARN("skipped: " << path << " is not there");
    return;
  }
  const auto vectors = nlohmann::json::parse(file);
  REQUIRE(vectors.size() == 7);
  for (const auto& vector : vectors) {
    const auto factors = vector.value("freq_factors", std::vector<float>{});
    const Rope rope = make_rope(params_of(vector, factors));
    for (const auto& test_case : vector["cases"]) {
      const int32_t position = test_case["pos"];
      const auto expected = test_case["y"].get<std::vector<float>>();
      auto head = vector["x"].get<std::vector<float>>();
      std::vector<float> cos_sin(static_cast<size_t>(rope.n_dims));
      rope_table(rope, &position, 1, cos_sin.data());
      rotate(head.data(), cos_sin.data(), rope.style, rope.n_dims);
      double worst = 0.0;
      for (size_t i = 0; i < head.size(); ++i)
        worst = std::max(worst, static_cast<double>(std::fabs(head[i] - expected[i])));
      INFO(vector["name"] << " at position " << position);
      CHECK(worst <= tolerance_at(position));
    }
  }
}

TEST_CASE("rotate leaves the elements after the rotated ones as they are") {
  std::vector<float> head{1, 2, 3, 4, 5, 6};
  const std::vector<float> quarter_turn{0, 1, 0, 1};  // cosine, sine of two pairs
  rotate(head.data(), quarter_turn.data(), RopeStyle::kNeox, 4);
  CHECK(head == std::vector<float>{-3, -4, 1, 2, 5, 6});
  head = {1, 2, 3, 4, 5, 6};
  rotate(head.data(), quarter_turn.data(), RopeStyle::kNorm, 4);
  CHECK(head == std::vector<float>{-2, 1, -4, 3, 5, 6});
}

}  // namespace dsctl::engine
