#include "engine/sampler.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <random>

#include "engine/philox.h"
#include "engine/sampler_candidates.h"
#include "engine/sampler_penalties.h"
#include "engine/tokenizer/tokenizer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

using nlohmann::json;

constexpr float kInf = std::numeric_limits<float>::infinity();

/// A row with its parameters and history, which SampleRow only points to.
struct Case {
  SamplingParams params;
  std::vector<int32_t> history{0};
  std::vector<int32_t> banned;
  uint64_t seed = 0;
  float mu = 0.0f;

  SampleRow row() const {
    SampleRow row;
    row.params = &params;
    row.history = &history;
    row.n_prompt = 1;
    row.seed = seed;
    row.mirostat_mu = mu;
    row.banned = &banned;
    return row;
  }
};

SamplingParams plain_draw() {
  SamplingParams params;
  params.temperature = 1.0f;
  params.top_k = 0;
  params.top_p = 1.0f;
  return params;
}

std::vector<float> random_logits(size_t n, uint32_t seed, float scale = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> logits(n);
  for (float& logit : logits)
    logit = normal(random);
  return logits;
}

SampledToken sample(std::vector<float> logits, const Case& request) {
  Sampler sampler(static_cast<int>(logits.size()));
  return sampler.sample(logits, request.row());
}

json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  REQUIRE(file);
  return json::parse(file);
}

// ---- The random generator ----

TEST_CASE("Philox4x32-10 gives the known answers of its authors") {
  // Random123's kat_vectors.
  using Words = std::array<uint32_t, 4>;
  CHECK(philox4x32({0, 0, 0, 0}, 0) == Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox4x32({~0U, ~0U, ~0U, ~0U}, ~uint64_t{0}) ==
        Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, 0x299f31d0a4093822) ==
        Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("exp_f32 is within 2e-7 of e^x and stays finite at the ends") {
  double worst = 0.0;
  for (int i = 0; i <= 870000; ++i) {
    const float x = static_cast<float>(-i) * 1e-4f;
    const double exact = std::exp(static_cast<double>(x));
    worst = std::max(worst, std::abs(static_cast<double>(exp_f32(x)) - exact) / exact);
  }
  CHECK(worst < 2e-7);
  CHECK(exp_f32(0.0f) == 1.0f);
  CHECK(exp_f32(-kInf) < 2e-38f);
  CHECK(exp_f32(-kInf) >= 0.0f);
}

// ---- Single samplers ----

/// Probabilities of the surviving candidates, best first, the dropped ones as 0 at the end.
std::vector<double> probabilities(const Candidates& candidates, size_t n_total, bool renormalise) {
  std::vector<double> result;
  double sum = 0.0;
  for (const Candidate& item : candidates.items) {
    result.push_back(std::exp(static_cast<double>(item.logit)));
    sum += result.back();
  }
  if (renormalise) {
    for (double& value : result)
      value /= sum;
  }
  std::sort(result.begin(), result.end(), std::greater<>());
  result.resize(n_total);
  return result;
}

Candidates candidates_of(const std::vector<float>& logits) {
  Candidates candidates;
  for (size_t i = 0; i < logits.size(); ++i) {
    candidates.items.push_back({.id = static_cast<int32_t>(i), .logit = logits[i]});
  }
  return candidates;
}

void apply_case(const json& test, std::vector<float>& logits, Candidates& candidates) {
  const std::string sampler = test["sampler"];
  const auto number = [&](const char* key) { return test.at(key).get<float>(); };
  const auto history = test.value("last_tokens", std::vector<int32_t>{});
  SamplingParams params;
  Penalties penalties(static_cast<int>(logits.size()));
  if (sampler == "penalties") {
    params.repeat_last_n = static_cast<int>(history.size());
    params.repeat_penalty = number("repeat");
    params.frequency_penalty = number("frequency");
    params.presence_penalty = number("presence");
    penalties.apply_repetition(logits, history, 0, params);
  } else if (sampler == "dry") {
    params.dry_multiplier = number("multiplier");
    params.dry_base = number("base");
    params.dry_allowed_length = test.at("allowed_length");
    params.dry_last_n = test.at("penalty_last_n");
    DryBreakers breakers;
    for (const auto& breaker : test.at("seq_breakers")) {
      breakers.add(breaker.get<std::vector<int32_t>>());
    }
    penalties.apply_dry(logits, history, params, &breakers);
  }
  candidates = candidates_of(logits);
  if (sampler == "top_k") keep_top_k(candidates, test.at("k"));
  if (sampler == "top_p") keep_top_p(candidates, number("p"));
  if (sampler == "min_p") keep_min_p(candidates, number("p"));
  if (sampler == "typical") keep_typical(candidates, number("p"));
  if (sampler == "xtc") exclude_top_choices(candidates, number("threshold"));
  if (sampler == "top_n_sigma") keep_top_n_sigma(candidates, number("n"));
  if (sampler == "temp" || sampler == "temp_ext") {
    if (number("temperature") <= 0.0f) {
      // Greedy is decided before candidates exist; the whole sampler says which token.
      Case request;
      request.params.temperature = 0.0f;
      const int32_t token = sample(logits, request).token;
      candidates.items = {{.id = token, .logit = logits[static_cast<size_t>(token)]}};
    } else {
      apply_temperature(candidates, number("temperature"), test.value("dynatemp_range", 0.0f),
                        test.value("dynatemp_exponent", 1.0f));
    }
  }
}

TEST_CASE("Each sampler gives the distribution of the shared cases") {
  const auto shared = tests::shared_dir();
  if (shared.empty()) {
    WARN("no shared test data: skipped");
    return;
  }
  const json file = read_json(shared / "data" / "vectors" / "sampling_cases.json");
  REQUIRE(file["cases"].size() == 40);
  for (const json& test : file["cases"]) {
    INFO(test.dump());
    std::vector<float> logits;
    for (const double p : test["probs"])
      logits.push_back(static_cast<float>(std::log(p)));
    Candidates candidates;
    apply_case(test, logits, candidates);
    const auto expected = test["expected"].get<std::vector<double>>();
    REQUIRE(candidates.items.size() <= expected.size());
    const std::string sampler = test["sampler"];
    const auto found =
        probabilities(candidates, expected.size(), sampler != "xtc" && sampler != "typical");
    for (size_t i = 0; i < expected.size(); ++i)
      CHECK(std::abs(found[i] - expected[i]) < 1e-5);
  }
}

TEST_CASE("Truncation gives the same set sorted or not, small or large") {
  for (const size_t n : {size_t{3}, size_t{100}, size_t{5000}}) {
    for (const float p : {0.0f, 0.1f, 0.5f, 0.9f, 0.99f}) {
      Candidates unsorted = candidates_of(random_logits(n, 5));
      Candidates sorted = unsorted;
      keep_top_k(sorted, static_cast<int>(n));
      keep_top_p(unsorted, p);
      keep_top_p(sorted, p);
      keep_top_k(unsorted, static_cast<int>(n));  // only sorts
      REQUIRE(unsorted.items.size() == sorted.items.size());
      for (size_t i = 0; i < sorted.items.size(); ++i) {
        CHECK(unsorted.items[i].id == sorted.items[i].id);
      }
      CHECK(sorted.items.size() >= 1);
    }
  }
}

// ---- The whole chain ----

SamplingParams params_of(const json& from) {
  SamplingParams p;
  const auto read = [&](const char* key, auto& field) {
    if (from.contains(key)) from[key].get_to(field);
  };
  read("temperature", p.temperature);
  read("top_k", p.top_k);
  read("top_p", p.top_p);
  read("min_p", p.min_p);
  read("typical_p", p.typical_p);
  read("top_n_sigma", p.top_n_sigma);
  read("xtc_probability", p.xtc_probability);
  read("xtc_threshold", p.xtc_threshold);
  read("dynatemp_range", p.dynatemp_range);
  read("dynatemp_exponent", p.dynatemp_exponent);
  read("repeat_last_n", p.repeat_last_n);
  read("repeat_penalty", p.repeat_penalty);
  read("presence_penalty", p.presence_penalty);
  read("frequency_penalty", p.frequency_penalty);
  read("penalize_prompt", p.penalize_prompt);
  read("dry_multiplier", p.dry_multiplier);
  read("dry_base", p.dry_base);
  read("dry_allowed_length", p.dry_allowed_length);
  read("dry_last_n", p.dry_last_n);
  read("mirostat", p.mirostat);
  read("mirostat_tau", p.mirostat_tau);
  read("mirostat_eta", p.mirostat_eta);
  read("logit_bias", p.logit_bias);
  return p;
}

TEST_CASE("The whole chain chooses the tokens of the golden file") {
  const json file =
      read_json(tests::source_dir() / "tests" / "golden" / "sampler" / "sampler_golden.json");
  for (const json& test : file["cases"]) {
    INFO(test.dump());
    const int vocab = test["vocab"];
    const uint64_t logit_seed = test["logit_seed"];
    std::vector<float> logits;
    for (uint32_t i = 0; i < static_cast<uint32_t>(vocab); ++i) {
      int sum = -2 * 8192;
      for (const uint32_t word : philox4x32({i, 0, 0, 77}, logit_seed)) {
        sum += static_cast<int>(word >> 19);
      }
      logits.push_back(static_cast<float>(sum) / 2048.0f);
    }
    Case request;
    request.params = params_of(test["params"]);
    request.history.clear();
    for (uint32_t i = 0; i < test["n_history"].get<uint32_t>(); ++i) {
      request.history.push_back(static_cast<int32_t>(philox4x32({i, 0, 0, 78}, logit_seed)[0] %
                                                     static_cast<uint32_t>(std::min(vocab, 7))));
    }
    request.banned = test["banned"].get<std::vector<int32_t>>();
    request.seed = test["seed"];
    request.mu = test["mu"];
    DryBreakers breakers;
    for (const auto& breaker : test["breakers"]) {
      breakers.add(breaker.get<std::vector<int32_t>>());
    }
    SampleRow row = request.row();
    row.n_prompt = test["n_prompt"];
    row.dry_breakers = &breakers;
    Sampler sampler(vocab);
    const SampledToken token = sampler.sample(logits, row);
    CHECK(token.error.empty());
    CHECK(token.token == test["token"].get<int32_t>());
    CHECK(std::abs(static_cast<double>(token.mirostat_mu) - test["new_mu"].get<double>()) < 1e-4);
  }
}

TEST_CASE("Greedy takes the largest logit and the lowest id among equals") {
  Case request;
  request.params.temperature = 0.0f;
  std::vector<float> logits(1000, -1.0f);
  logits[700] = logits[130] = logits[131] = 2.0f;
  CHECK(sample(logits, request).token == 130);
  request.banned = {130};
  CHECK(sample(logits, request).token == 131);
  request.params.logit_bias = {{900, 100.0f}};
  CHECK(sample(logits, request).token == 900);
  request.params.temperature = -1.0f;
  CHECK(sample(logits, request).token == 900);
  request = Case();
  request.params.temperature = 0.0f;
  CHECK(sample(std::vector<float>(77, 0.0f), request).token == 0);
}

TEST_CASE("A token depends on seed and position, not on what was sampled before") {
  const auto logits = random_logits(2000, 1);
  Case request;
  request.params = plain_draw();
  request.seed = 42;
  std::vector<int32_t> alone;
  for (int position = 1; position < 40; ++position) {
    request.history.resize(static_cast<size_t>(position));
    alone.push_back(sample(logits, request).token);
  }
  Sampler sampler(2000);
  Case other;
  other.params.repeat_penalty = 1.5f;
  other.params.n_logprobs = 3;
  other.params.dry_multiplier = 1.0f;
  other.history = {5, 6, 7, 5, 6, 7, 5, 6};
  for (int position = 39; position >= 1; --position) {
    auto scratch = random_logits(2000, static_cast<uint32_t>(position));
    sampler.sample(scratch, other.row());
    request.history.resize(static_cast<size_t>(position));
    scratch = logits;
    CHECK(sampler.sample(scratch, request.row()).token == alone[static_cast<size_t>(position - 1)]);
  }
  std::sort(alone.begin(), alone.end());
  CHECK(std::unique(alone.begin(), alone.end()) - alone.begin() > 10);
  request.history.resize(1);
  request.seed = 43;
  const int32_t with_43 = sample(logits, request).token;
  int n_equal = 0;
  for (request.seed = 100; request.seed < 200; ++request.seed) {
    n_equal += sample(logits, request).token == with_43;
  }
  CHECK(n_equal < 20);
}

/// The chi-square statistic of `n_draws` draws against the softmax of `logits` over `kept` ids.
double chi_square(const std::vector<float>& logits, const Case& base, const std::vector<int>& kept,
                  int n_draws) {
  std::vector<double> expected(logits.size());
  double sum = 0.0;
  for (const int id : kept) {
    const auto i = static_cast<size_t>(id);
    expected[i] =
        std::exp(static_cast<double>(logits[i]) / static_cast<double>(base.params.temperature));
    sum += expected[i];
  }
  std::vector<int> counts(logits.size());
  Sampler sampler(static_cast<int>(logits.size()));
  Case request = base;
  std::vector<float> scratch;
  for (int i = 0; i < n_draws; ++i) {
    request.seed = static_cast<uint64_t>(i / 64);
    request.history.resize(static_cast<size_t>(1 + i % 64));
    scratch = logits;
    ++counts[static_cast<size_t>(sampler.sample(scratch, request.row()).token)];
  }
  double statistic = 0.0;
  for (size_t i = 0; i < logits.size(); ++i) {
    if (expected[i] == 0.0) {
      CHECK(counts[i] == 0);
      continue;
    }
    const double wanted = expected[i] / sum * n_draws;
    statistic += (counts[i] - wanted) * (counts[i] - wanted) / wanted;
  }
  return statistic;
}

TEST_CASE("Draws follow the distribution: chi-square within six sigma") {
  const std::vector<float> logits{0.0f, 1.0f, -1.0f, 2.0f, 0.5f, -2.0f, 1.5f, -0.5f, 0.25f, -3.0f};
  const auto within = [](double statistic, int degrees) {
    return statistic < degrees + 6.0 * std::sqrt(2.0 * degrees) && statistic > 0.0;
  };
  Case request;
  request.params = plain_draw();
  std::vector<int> all(10);
  std::iota(all.begin(), all.end(), 0);
  CHECK(within(chi_square(logits, request, all, 50000), 9));
  request.params.temperature = 0.5f;
  CHECK(within(chi_square(logits, request, all, 50000), 9));
  request.params.temperature = 1.0f;
  request.params.top_k = 4;
  CHECK(within(chi_square(logits, request, {1, 3, 4, 6}, 50000), 3));
}

TEST_CASE("XTC acts with its probability") {
  const std::vector<float> logits{2.0f, 1.9f, -9.0f, -9.0f};
  Case request;
  request.params = plain_draw();
  request.params.xtc_probability = 0.3f;
  int n_best = 0;
  constexpr int kDraws = 20000;
  for (int i = 0; i < kDraws; ++i) {
    request.seed = static_cast<uint64_t>(i);
    n_best += sample(logits, request).token == 0;
  }
  // P(0) = 0.525 while XTC is idle, 0 while it acts.
  const double expected = 0.7 * 1.0 / (1.0 + std::exp(-0.1));
  CHECK(std::abs(n_best / double{kDraws} - expected) < 0.02);
}

TEST_CASE("Log-probabilities are those of the untouched logits, the chosen token included") {
  auto logits = random_logits(1000, 9);
  logits[10] = logits[11] = 14.0f;
  Case request;
  request.params.temperature = 0.0f;
  request.params.n_logprobs = 4;
  request.params.logit_bias = {{500, 100.0f}};
  request.params.repeat_penalty = 2.0f;
  request.history = {10, 11, 12};
  double sum = 0.0;
  for (const float logit : logits)
    sum += std::exp(static_cast<double>(logit));
  const auto logprob = [&](int32_t id) {
    return static_cast<double>(logits[static_cast<size_t>(id)]) - std::log(sum);
  };
  const SampledToken result = sample(logits, request);
  CHECK(result.token == 500);
  CHECK(std::abs(static_cast<double>(result.logprob) - logprob(500)) < 1e-5);
  REQUIRE(result.top_logprobs.size() == 4);
  CHECK(result.top_logprobs[0].token == 10);
  CHECK(result.top_logprobs[1].token == 11);
  for (size_t i = 0; i < 4; ++i) {
    const TokenLogprob& top = result.top_logprobs[i];
    CHECK(std::abs(static_cast<double>(top.logprob) - logprob(top.token)) < 1e-5);
    if (i > 0) CHECK(top.logprob <= result.top_logprobs[i - 1].logprob);
  }
  request.params.n_logprobs = 0;
  CHECK(sample(logits, request).top_logprobs.empty());
  CHECK(std::abs(static_cast<double>(sample(logits, request).logprob) - logprob(500)) < 1e-5);
  request.params.n_logprobs = 5000;
  CHECK(sample(logits, request).top_logprobs.size() == 1000);
}

TEST_CASE("Logits that are not numbers and rows without a token are told apart, and clearly") {
  auto logits = random_logits(300, 2);
  for (const float temperature : {0.0f, 1.0f}) {
    for (const int n_logprobs : {-1, 2}) {
      Case request;
      request.params.temperature = temperature;
      request.params.n_logprobs = n_logprobs;
      request.history = {1, 2, 3};
      for (const size_t idx : {size_t{0}, size_t{63}, size_t{150}, size_t{299}}) {
        auto bad = logits;
        bad[idx] = std::numeric_limits<float>::quiet_NaN();
        CHECK_THAT(sample(bad, request).error, Catch::Contains("at position 3 contain"));
        bad[idx] = kInf;
        CHECK_THAT(sample(bad, request).error, Catch::Contains("NaN or infinity"));
        bad[idx] = -kInf;
        CHECK(sample(bad, request).error.empty());
      }
      CHECK_THAT(sample(std::vector<float>(300, -kInf), request).error,
                 Catch::Contains("no token can be chosen"));
      for (int32_t id = 0; id < 300; ++id)
        request.banned.push_back(id);
      CHECK_THAT(sample(logits, request).error, Catch::Contains("all are banned"));
      request.banned.erase(request.banned.begin() + 77);
      CHECK(sample(logits, request).token == 77);
    }
  }
}

TEST_CASE("Tokens with a logit of -inf are never drawn, whatever the sampler") {
  std::vector<float> logits(500, -kInf);
  logits[123] = 1.0f;
  logits[124] = 0.5f;
  for (const int mirostat : {0, 1, 2}) {
    for (const int top_k : {0, 1, 40, 1000}) {
      Case request;
      request.params.top_k = top_k;
      request.params.mirostat = mirostat;
      request.params.top_n_sigma = top_k == 40 ? 1.0f : -1.0f;
      request.params.typical_p = 0.9f;
      request.params.min_p = 0.01f;
      request.params.dynatemp_range = 0.5f;
      request.mu = 10.0f;
      for (request.seed = 0; request.seed < 50; ++request.seed) {
        const SampledToken result = sample(logits, request);
        CHECK(result.error.empty());
        CHECK((result.token == 123 || result.token == 124));
      }
    }
  }
}

TEST_CASE("Mirostat 2 steers the mean surprise to tau") {
  const auto logits = random_logits(5000, 3);
  for (const int version : {1, 2}) {
    Case request;
    request.params.mirostat = version;
    request.params.mirostat_tau = 3.0f;
    request.params.temperature = 1.0f;
    request.params.n_logprobs = 0;
    request.mu = 6.0f;
    for (int i = 1; i < 1500; ++i) {
      request.history.resize(static_cast<size_t>(i));
      request.mu = sample(logits, request).mirostat_mu;
      REQUIRE(std::isfinite(request.mu));
    }
    // mu has settled where the surprise is tau on average: it no longer runs away.
    CHECK(request.mu > 1.0f);
    CHECK(request.mu < 12.0f);
  }
}

// ---- DRY breakers ----

/// Single bytes and a few longer pieces, greedily encoded.
class FakeTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text, AddSpecial, SpecialTokens) const override {
    std::vector<int32_t> tokens;
    while (!text.empty()) {
      int32_t best = -1;
      for (int32_t id = 0; id < vocab_size(); ++id) {
        const auto candidate = pieces_[static_cast<size_t>(id)];
        if (text.starts_with(candidate) &&
            (best < 0 || candidate.size() > pieces_[static_cast<size_t>(best)].size())) {
          best = id;
        }
      }
      REQUIRE(best >= 0);
      tokens.push_back(best);
      text.remove_prefix(pieces_[static_cast<size_t>(best)].size());
    }
    return tokens;
  }
  std::string_view piece(int32_t token, SpecialTokens) const override {
    return pieces_[static_cast<size_t>(token)];
  }
  std::string decode(std::span<const int32_t>, SpecialTokens) const override { return {}; }
  int vocab_size() const override { return static_cast<int>(pieces_.size()); }
  std::string_view text(int32_t token) const override {
    return pieces_[static_cast<size_t>(token)];
  }
  TokenType type(int32_t) const override { return TokenType::kNormal; }
  int32_t find(std::string_view) const override { return -1; }
  int32_t bos() const override { return -1; }
  int32_t eos() const override { return -1; }
  bool adds_bos() const override { return false; }
  bool adds_eos() const override { return false; }
  const std::vector<int32_t>& eog_tokens() const override { return none_; }
  bool is_eog(int32_t) const override { return false; }
  std::string description() const override { return "fake"; }

 private:
  std::vector<std::string_view> pieces_{"a", "b", "c", "\n", "x\n\n", "ca", "bc", "ab"};
  std::vector<int32_t> none_;
};

TEST_CASE("DRY breakers are found inside a token and across tokens") {
  const FakeTokenizer tokenizer;
  const DryBreakers newline = DryBreakers::resolve({"\n", ""}, tokenizer);
  CHECK(newline.is_single(3));
  CHECK(newline.is_single(4));
  CHECK_FALSE(newline.is_single(0));
  // "abc": no token holds it; "a" + "bc", "ca" + "bc", "ab" + "c".
  const DryBreakers word = DryBreakers::resolve({"abc"}, tokenizer);
  CHECK_FALSE(word.is_single(0));
  REQUIRE(word.tails(0).size() == 1);
  CHECK(word.tails(0)[0] == std::vector<int32_t>{6});
  CHECK(word.tails(5).size() == 1);
  REQUIRE(word.tails(7).size() == 1);
  CHECK(word.tails(7)[0] == std::vector<int32_t>{2});
  CHECK(word.tails(1).empty());
}

// ---- Speed ----

TEST_CASE("Sampling a vocabulary of 128k costs little", "[slow]") {
  constexpr size_t kVocab = 128256;
  const auto logits = random_logits(kVocab, 4, 2.5f);
  Sampler sampler(kVocab);
  const auto measure = [&](const char* name, const Case& base) {
    Case request = base;
    request.history.assign(512, 17);
    std::vector<double> times_us;
    for (int i = 0; i < 200; ++i) {
      auto scratch = logits;
      request.seed = static_cast<uint64_t>(i);
      const auto begin = std::chrono::steady_clock::now();
      sampler.sample(scratch, request.row());
      times_us.push_back(
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - begin)
              .count());
    }
    std::sort(times_us.begin(), times_us.end());
    std::printf("  %-36s median %8.1f us, best %8.1f us\n", name, times_us[100], times_us[0]);
    return times_us[0];
  };
  Case request;
  const double default_us = measure("default (T 0.8, k 40, p 0.9)", request);
  request.params.repeat_penalty = 1.1f;
  measure("with repeat penalty", request);
  request.params.n_logprobs = 5;
  measure("with repeat penalty and 5 logprobs", request);
  request.params = SamplingParams();
  request.params.temperature = 0.0f;
  measure("greedy", request);
  request.params = plain_draw();
  measure("T 1, no truncation", request);
  request.params.top_p = 0.95f;
  measure("T 1, top-p 0.95 only", request);
  request.params.top_p = 1.0f;
  request.params.min_p = 0.05f;
  measure("T 1, min-p 0.05 only", request);
  request.params.mirostat = 2;
  request.mu = 10.0f;
  measure("mirostat 2", request);
#ifdef NDEBUG
  CHECK(default_us < 200.0);
#else
  CHECK(default_us > 0.0);
#endif
}

}  // namespace
}  // namespace dsctl::engine
