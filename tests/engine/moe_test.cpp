// Routing, the order of tokens in their experts, and grouped products.
#include "engine/cpu/moe.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "engine/cpu/kernels.h"
#include "gguf/quants/encode.h"
#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

std::vector<float> normal_values(size_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& value : values)
    value = normal(random);
  return values;
}

struct Choice {
  std::vector<int32_t> experts;
  std::vector<float> weights;
};

Choice choose(const Routing& routing, const std::vector<float>& logits,
              const std::vector<float>& bias) {
  const auto n_used = static_cast<size_t>(routing.n_used);
  Choice choice{std::vector<int32_t>(n_used), std::vector<float>(n_used)};
  std::vector<float> scratch(2 * logits.size());
  choose_experts(routing, logits.data(), bias.empty() ? nullptr : bias.data(),
                 choice.experts.data(), choice.weights.data(), scratch.data());
  return choice;
}

/// The paper's words with sorted lists, in f64.
Choice expected(const Routing& routing, const std::vector<float>& logits,
                const std::vector<float>& bias) {
  const size_t n = logits.size();
  std::vector<double> scores(n);
  double sum = 0.0;
  for (size_t i = 0; i < n; ++i) {
    scores[i] = routing.gating == ExpertGating::kSigmoid ? 1.0 / (1.0 + std::exp(-logits[i]))
                                                         : std::exp(double{logits[i]});
    sum += scores[i];
  }
  std::vector<double> choice = scores;
  for (size_t i = 0; i < n; ++i) {
    if (routing.gating == ExpertGating::kSoftmax) scores[i] /= sum;
    choice[i] = scores[i] + (bias.empty() ? 0.0 : bias[i]);
  }
  const size_t group_size = n / static_cast<size_t>(routing.n_groups);
  std::vector<std::pair<double, size_t>> groups;
  for (size_t g = 0; g < n / group_size; ++g) {
    std::vector<double> own(choice.begin() + static_cast<ptrdiff_t>(g * group_size),
                            choice.begin() + static_cast<ptrdiff_t>((g + 1) * group_size));
    std::sort(own.rbegin(), own.rend());
    groups.emplace_back(routing.group_score == GroupScore::kBestTwo ? own[0] + own[1] : own[0], g);
  }
  std::sort(groups.rbegin(), groups.rend());
  std::vector<std::pair<double, int32_t>> candidates;
  for (size_t k = 0; k < static_cast<size_t>(routing.n_used_groups); ++k) {
    for (size_t i = groups[k].second * group_size; i < (groups[k].second + 1) * group_size; ++i)
      candidates.emplace_back(choice[i], static_cast<int32_t>(i));
  }
  std::sort(candidates.rbegin(), candidates.rend());
  Choice result;
  double total = 0.0;
  for (size_t k = 0; k < static_cast<size_t>(routing.n_used); ++k)
    result.experts.push_back(candidates[k].second);
  std::sort(result.experts.begin(), result.experts.end());
  for (const int32_t e : result.experts)
    total += scores[static_cast<size_t>(e)];
  for (const int32_t e : result.experts) {
    const double weight = scores[static_cast<size_t>(e)] / (routing.is_normalised ? total : 1.0);
    result.weights.push_back(static_cast<float>(weight * routing.scale));
  }
  return result;
}

TEST_CASE("Experts and their weights are those of the definition") {
  const std::vector<float> bias = normal_values(32, 99);
  for (const ExpertGating gating : {ExpertGating::kSoftmax, ExpertGating::kSigmoid}) {
    for (const int n_groups : {1, 4, 8}) {
      for (const bool with_bias : {false, true}) {
        const Routing routing{.n_experts = 32,
                              .n_used = 5,
                              .gating = gating,
                              .n_groups = n_groups,
                              .n_used_groups = n_groups == 1 ? 1 : 3,
                              .group_score = with_bias ? GroupScore::kBestTwo : GroupScore::kBest,
                              .is_normalised = gating == ExpertGating::kSigmoid,
                              .scale = 2.5f};
        for (uint64_t seed = 0; seed < 50; ++seed) {
          const auto logits = normal_values(32, seed);
          const auto used_bias = with_bias ? bias : std::vector<float>{};
          const Choice actual = choose(routing, logits, used_bias);
          const Choice wanted = expected(routing, logits, used_bias);
          INFO(n_groups << " groups, seed " << seed);
          REQUIRE(actual.experts == wanted.experts);
          for (size_t k = 0; k < wanted.weights.size(); ++k)
            REQUIRE(actual.weights[k] == Approx(wanted.weights[k]).epsilon(1e-5));
        }
      }
    }
  }
}

TEST_CASE("Of equal experts, and of equal groups, the lower index is chosen") {
  const Routing routing{.n_experts = 8, .n_used = 3, .n_groups = 4, .n_used_groups = 2};
  CHECK(choose(routing, std::vector<float>(8, 1.0f), {}).experts == std::vector<int32_t>{0, 1, 2});
}

TEST_CASE("Routing of logits that are no numbers chooses experts that exist, each once") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  for (const ExpertGating gating : {ExpertGating::kSoftmax, ExpertGating::kSigmoid}) {
    const Routing routing{
        .n_experts = 8, .n_used = 4, .gating = gating, .n_groups = 4, .n_used_groups = 2};
    for (const auto& logits :
         {std::vector<float>(8, nan), std::vector<float>(8, -inf), std::vector<float>(8, inf),
          std::vector<float>{nan, 1, nan, 2, -inf, inf, 0, nan}}) {
      const auto experts = choose(routing, logits, {}).experts;
      for (size_t k = 0; k < 4; ++k) {
        CHECK(experts[k] >= 0);
        CHECK(experts[k] < 8);
        if (k > 0) CHECK(experts[k] > experts[k - 1]);
      }
    }
  }
}

TEST_CASE("A plan lists this rank's experts one after the other, with their tokens in order") {
  ExpertPlan plan(4, 2, 3);
  // Experts 2, 3 and 4 are this rank's.
  const std::vector<int32_t> experts{2, 5, 0, 3, 2, 3, 1, 4};
  plan.assign(experts.data(), 4, 2, 2);
  CHECK(std::vector<int32_t>(plan.starts().begin(), plan.starts().end()) ==
        std::vector<int32_t>{0, 2, 4, 5});
  CHECK(std::vector<int32_t>(plan.tokens().begin(), plan.tokens().end()) ==
        std::vector<int32_t>{0, 2, 1, 2, 3});
  const std::vector<int32_t> pairs{0, -1, -1, 2, 1, 3, -1, 4};
  for (int64_t i = 0; i < 8; ++i)
    CHECK(plan.pair(i / 2, static_cast<int>(i % 2)) == pairs[static_cast<size_t>(i)]);
  plan.assign(experts.data() + 2, 1, 2, 2);  // and again, with fewer
  CHECK(plan.tokens().size() == 1);
  CHECK(plan.pair(0, 1) == 0);
}

TEST_CASE("A grouped product gives the bits of one product for each group") {
  constexpr int kCols = 256;
  constexpr int kOutputs = 40;
  constexpr int kTokens = 50;
  const std::vector<int32_t> starts{0, 1, 1, 18, 35, 50};  // one of them empty
  const auto n_groups = starts.size() - 1;
  const auto x = normal_values(size_t{kTokens} * kCols, 5);
  for (const CpuKernels choice : {CpuKernels::kReference, CpuKernels::kFast}) {
    const KernelSet& kernels = select_kernels(choice);
    for (const auto dtype : {gguf::DType::F32, gguf::DType::Q4_0, gguf::DType::Q4_K}) {
      ThreadPool pool(2);
      WeightArena arena;
      std::vector<std::vector<std::byte>> bytes;
      std::vector<std::unique_ptr<LinearWeight>> weights;
      for (size_t g = 0; g < n_groups; ++g) {
        const auto values = normal_values(size_t{kOutputs} * kCols, 10 + g);
        bytes.emplace_back(static_cast<size_t>(gguf::row_size_bytes(dtype, kOutputs * kCols)));
        gguf::quantize_row(dtype, values.data(), bytes[g].data(), kOutputs * kCols);
        weights.push_back(
            kernels.make_weight({.dtype = dtype,
                                 .n_rows = kOutputs,
                                 .n_cols = kCols,
                                 .data = bytes[g].data(),
                                 .row_stride_bytes = gguf::row_size_bytes(dtype, kCols)},
                                arena));
      }
      // Rows in reversed order, from another input.
      std::vector<int32_t> reversed(kTokens);
      std::iota(reversed.rbegin(), reversed.rend(), 0);
      const auto from = kernels.make_input(kTokens, kCols, 2);
      const auto input = kernels.make_input(kTokens, kCols, 2);
      from->assign({x.data(), kCols, kTokens, kCols}, pool);
      input->assign_rows(*from, reversed, pool);
      input->group(starts);
      std::vector<float> grouped(size_t{kTokens} * kOutputs);
      std::vector<LinearOutput> outputs;
      for (size_t g = 0; g < n_groups; ++g)
        outputs.push_back(
            {weights[g].get(), nullptr, grouped.data(), kOutputs, static_cast<int>(g)});
      kernels.linear(*input, outputs, pool);

      std::vector<float> single(size_t{kTokens} * kOutputs);
      for (size_t g = 0; g < n_groups; ++g) {
        for (int32_t t = starts[g]; t < starts[g + 1]; ++t) {
          const float* row = x.data() + int64_t{kTokens - 1 - t} * kCols;
          from->assign({row, kCols, 1, kCols}, pool);
          const LinearOutput output{weights[g].get(), nullptr,
                                    single.data() + int64_t{t} * kOutputs, kOutputs};
          kernels.linear(*from, {&output, 1}, pool);
        }
      }
      INFO(kernels.name() << ", " << gguf::dtype_info(dtype).name);
      CHECK(grouped == single);
    }
  }
}

}  // namespace
}  // namespace dsctl::engine
