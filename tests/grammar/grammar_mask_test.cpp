#include <condition_variable>
#include <limits>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>

#include "engine/engine.h"
#include "engine/error.h"
#include "engine/grammar/grammar.h"
#include "engine/tokenizer/vocabulary.h"
#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/engine_models.h"
#include "tests/support/paths.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {
namespace {

using nlohmann::json;
using Kind = GrammarSpec::Kind;

/// Bytes and some words; the last but one token ends a generation.
std::unique_ptr<Tokenizer> words_tokenizer() {
  auto vocabulary = tests::small_bpe({"a b", "b c", "ab c", "\" :", "t r", "tr u", "tru e", "{ \"",
                                      "1 2", "12 3", "x x", "xx xx", "xxxx xxxx",
                                      "xxxxxxxx xxxxxxxx", "xxxxxxxxxxxxxxxx xxxxxxxxxxxxxxxx",
                                      "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx xx"});
  const auto end = std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), "<|end|>");
  vocabulary.eos = static_cast<int32_t>(end - vocabulary.tokens.begin());
  return make_tokenizer(std::move(vocabulary));
}

GrammarSpec spec_of(Kind kind, std::string source) {
  GrammarSpec spec;
  spec.kind = kind;
  spec.source = std::move(source);
  return spec;
}

bool has(const TokenMask& mask, int32_t token) {
  return ((mask[static_cast<size_t>(token) / 32] >> (token % 32)) & 1u) != 0;
}

/// Every token of the mask against the automaton, after each token of random texts.
void check_masks(const Tokenizer& tokenizer, const GrammarSpec& spec, int n_texts, uint32_t seed) {
  GrammarCache cache(tokenizer);
  const auto grammar = cache.get(spec);
  std::mt19937 random(seed);
  TokenMask mask;
  for (int i = 0; i < n_texts; ++i) {
    grammar::State state = grammar->start();
    for (int step = 0; step < 40; ++step) {
      const bool any = grammar->fill_mask(state, mask);
      std::vector<int32_t> allowed;
      for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
        const std::string_view piece = tokenizer.piece(token, SpecialTokens::kAsText);
        const bool may_follow =
            tokenizer.is_eog(token)
                ? grammar->is_accepting(state)
                : !piece.empty() && grammar->next(state, piece) != grammar::kDead;
        if (has(mask, token) != may_follow) {
          INFO(spec.source << ", token " << token << " \"" << piece << "\"");
          CHECK(has(mask, token) == may_follow);
        }
        if (may_follow && !tokenizer.is_eog(token)) allowed.push_back(token);
      }
      const bool may_end = grammar->is_accepting(state) && !tokenizer.eog_tokens().empty();
      CHECK(any == (!allowed.empty() || may_end));
      if (allowed.empty()) break;
      const int32_t token = allowed[random() % allowed.size()];
      state = grammar->next(state, tokenizer.piece(token, SpecialTokens::kAsText));
    }
  }
}

const GrammarSpec kSpecs[] = {
    spec_of(Kind::kGbnf, "root ::= \"{\\\"\" [a-x]{3,70} \"\\\":\" (\"true\" | [0-9]+) \"}\""),
    spec_of(Kind::kJsonObject, ""),
    spec_of(Kind::kJsonSchema,
            R"({"type":"object","properties":{"abc":{"type":"string","maxLength":80},
                "n":{"type":"integer","minimum":12,"maximum":1234}},"required":["abc"]})"),
    spec_of(Kind::kRegex, "(ab|abc)*x{100,200}[^x]"),
    spec_of(Kind::kChoice, R"(["abc","abcabc","true \u00e9","123"])")};

TEST_CASE("a mask has exactly the tokens that can follow") {
  const auto tokenizer = words_tokenizer();
  for (const GrammarSpec& spec : kSpecs)
    check_masks(*tokenizer, spec, 20, 5);
}

TEST_CASE("a mask over a real vocabulary has exactly the tokens that can follow") {
  const auto tokenizer = tests::llama3_2_tokenizer();
  if (tokenizer == nullptr) {
    WARN("the shared test data is not there");
    return;
  }
  check_masks(*tokenizer, kSpecs[2], 1, 6);
}

TEST_CASE("a matcher bans what can't follow and ends where nothing can") {
  const auto tokenizer = words_tokenizer();
  GrammarCache cache(*tokenizer);
  const auto spec = spec_of(Kind::kChoice, R"(["abc","ab"])");
  GrammarMatcher matcher(cache.get(spec), spec, *tokenizer);
  std::vector<float> logits(static_cast<size_t>(tokenizer->vocab_size()), 1.0f);
  REQUIRE(matcher.apply(logits));
  size_t n_left = 0;
  for (const float logit : logits)
    n_left += logit == 1.0f ? 1 : 0;
  CHECK(n_left == 3);  // "a", "ab", "abc"
  matcher.accept(tokenizer->find("ab"));
  CHECK_FALSE(matcher.is_finished());
  logits.assign(logits.size(), 1.0f);
  REQUIRE(matcher.apply(logits));
  CHECK(logits[static_cast<size_t>(tokenizer->eos())] == 1.0f);
  CHECK_THROWS_WITH(matcher.accept(tokenizer->find("a")), Catch::Contains("can't follow"));
  matcher.accept(tokenizer->find("c"));
  CHECK(matcher.is_finished());
}

TEST_CASE("a grammar can wait for the end of thinking") {
  const auto tokenizer = words_tokenizer();
  GrammarCache cache(*tokenizer);
  auto spec = spec_of(Kind::kChoice, R"(["abc"])");
  spec.start_after = "</t>";
  GrammarMatcher matcher(cache.get(spec), spec, *tokenizer);
  const auto accept = [&](std::string_view text) {
    for (const int32_t token : tokenizer->encode(text, AddSpecial::kNo, SpecialTokens::kAsText))
      matcher.accept(token);
  };
  accept("anything <");
  CHECK_FALSE(matcher.is_active());
  std::vector<float> logits(static_cast<size_t>(tokenizer->vocab_size()), 1.0f);
  CHECK(matcher.apply(logits));
  CHECK(std::count(logits.begin(), logits.end(), 1.0f) == tokenizer->vocab_size());
  accept("/t>");
  CHECK(matcher.is_active());
  accept("\n\n");
  CHECK_THROWS_AS(accept("x"), Error);
  accept("abc");
  CHECK(matcher.is_finished());
}

TEST_CASE("a grammar holds from the start unless thinking comes first") {
  const auto tokenizer = words_tokenizer();
  GrammarCache cache(*tokenizer);
  auto spec = spec_of(Kind::kChoice, R"(["abc"])");
  spec.may_begin_with = "<t>";
  spec.start_after = "</</t>";
  const auto finishes = [&](std::string_view text) {
    GrammarMatcher matcher(cache.get(spec), spec, *tokenizer);
    CHECK(matcher.is_active());
    for (const int32_t token : tokenizer->encode(text, AddSpecial::kNo, SpecialTokens::kAsText))
      matcher.accept(token);
    return matcher.is_finished();
  };
  CHECK(finishes("abc"));
  CHECK(finishes("<t>any </t> \xC3\xA9 </</</t>\n\nabc"));
  CHECK_FALSE(finishes("<t>abc"));
  CHECK_THROWS_AS(finishes("any"), Error);
  CHECK_THROWS_AS(finishes("<t></</t>any"), Error);
}

TEST_CASE("a grammar can wait for a trigger, which it begins with") {
  const auto tokenizer = words_tokenizer();
  GrammarCache cache(*tokenizer);
  auto spec = spec_of(Kind::kGbnf, "root ::= \"[ab\" \"c\"* \"]\" | \"<x>\"");
  spec.triggers = {"[a", "<x"};
  GrammarMatcher matcher(cache.get(spec), spec, *tokenizer);
  for (const int32_t token :
       tokenizer->encode("some [text [", AddSpecial::kNo, SpecialTokens::kAsText))
    matcher.accept(token);
  CHECK_FALSE(matcher.is_active());
  matcher.accept(tokenizer->find("ab"));  // reaches beyond the trigger
  CHECK(matcher.is_active());
  matcher.accept(tokenizer->find("c"));
  matcher.accept(tokenizer->find("]"));
  CHECK(matcher.is_finished());
}

TEST_CASE("a cache gives one grammar for one specification") {
  const auto tokenizer = words_tokenizer();
  GrammarCache cache(*tokenizer);
  const auto first = cache.get(kSpecs[0]);
  CHECK(cache.get(kSpecs[0]) == first);
  auto after = kSpecs[0];
  after.start_after = "</think>";
  CHECK(cache.get(after) != first);
  CHECK_THROWS_WITH(cache.get(spec_of(Kind::kChoice, "[]")), Catch::Contains("expected a list"));
  CHECK_THROWS_WITH(cache.get(spec_of(Kind::kChoice, "[1]")), Catch::Contains("found 1"));
}

TEST_CASE("a generation of the engine follows its grammar") {
  const tests::TempDir dir;
  const auto tokenizer = words_tokenizer();
  tests::RandomModel model;
  model.vocab_size = tokenizer->vocab_size();
  tests::write_model(dir.path() / "model.gguf", model);
  const auto file = gguf::GgufFile::open(dir.path() / "model.gguf");
  EngineOptions options = tests::small_options();
  options.tokenizer = tokenizer.get();
  options.max_model_len = 400;
  options.n_kv_blocks = 0;
  const auto engine = Engine::load(file, options);
  std::mutex mutex;
  std::condition_variable changed;
  struct Answer {
    std::string text;
    std::optional<Event> end;
  };
  std::vector<Answer> answers(6);
  for (size_t i = 0; i < answers.size(); ++i) {
    Request request;
    request.prompt_tokens = {1, 2, 3};
    request.sampling.temperature = 3.0f;
    request.sampling.top_k = 0;
    request.sampling.top_p = 1.0f;
    request.sampling.seed = i;
    request.stop_token_ids = tokenizer->eog_tokens();  // the model's file names none
    request.grammar = spec_of(
        Kind::kJsonSchema,
        R"({"type":"object","properties":{"abc":{"type":"string","maxLength":9},"n":{"type":"integer"}},
            "required":["abc","n"]})");
    const SubmitResult result = engine->submit(request, [&, i](const Event& event) {
      const std::lock_guard lock(mutex);
      if (event.finished) {
        answers[i].end = event;
        changed.notify_all();
      } else {
        answers[i].text += tokenizer->piece(event.token, SpecialTokens::kAsText);
      }
    });
    INFO(result.message);
    REQUIRE_FALSE(result.error);
  }
  std::unique_lock lock(mutex);
  changed.wait(lock, [&] {
    return std::all_of(answers.begin(), answers.end(),
                       [](const Answer& answer) { return answer.end.has_value(); });
  });
  for (const Answer& answer : answers) {
    INFO(answer.text << " " << answer.end->error);
    REQUIRE(answer.end->reason == FinishReason::kStop);
    const json parsed = json::parse(answer.text);
    CHECK(parsed.at("abc").is_string());
    CHECK(parsed.at("n").is_number_integer());
  }
  lock.unlock();
  Request broken;
  broken.prompt_tokens = {1};
  broken.grammar = spec_of(Kind::kGbnf, "root ::= (");
  const SubmitResult refused = engine->submit(broken, [](const Event&) {});
  CHECK(refused.error == SubmitError::kBadGrammar);
  CHECK_THAT(refused.message, Catch::Contains("line 1, column 11"));
}

}  // namespace
}  // namespace dsctl::engine
