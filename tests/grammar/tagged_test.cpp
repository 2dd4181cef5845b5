#include "engine/grammar/tagged.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/grammar/grammar.h"
#include "engine/tokenizer/vocabulary.h"
#include "tests/support/catch.h"
#include "tests/support/grammar_text.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {
namespace {

constexpr const char* kSource = R"({"open": "[", "separator": ", ", "close": "]", "max_items": 2,
    "items": [{"begin": "f=", "schema": {"type": "object", "properties": {"a": {"type": "integer"}},
                                         "required": ["a"]}, "end": ";"},
              {"begin": "g=", "schema": {"type": "boolean"}}]})";

}  // namespace

TEST_CASE("a tagged grammar takes values of its items between its texts") {
  tests::TextMatcher matcher(grammar::parse_tagged(kSource));
  CHECK(matcher.accepts(R"([f={"a": 1};])"));
  CHECK(matcher.accepts(R"([g=true, f={"a":-2};])"));
  CHECK_FALSE(matcher.accepts("[]"));
  CHECK_FALSE(matcher.accepts("[g=true, g=true, g=false]"));
  CHECK_FALSE(matcher.accepts("[g=1]"));
  CHECK_FALSE(matcher.accepts(R"([f={};])"));
  CHECK_FALSE(matcher.accepts("g=true"));
}

TEST_CASE("a tagged grammar that is none is refused") {
  for (const char* source :
       {"", "[]", "{}", R"({"items": []})", R"({"items": [{"begin": "x"}], "max_items": 1})",
        R"({"items": [{"schema": true}], "max_items": 0})", R"({"items": [{"schema": true}]})",
        R"({"items": [{"schema": true, "begin": 1}], "max_items": 1})"}) {
    INFO(source);
    CHECK_THROWS_AS(grammar::parse_tagged(source), Error);
  }
  try {
    grammar::parse_tagged(R"({"items": [{"begin": "f", "schema": {"not": {}}}], "max_items": 1})");
    FAIL("accepted");
  } catch (const Error& error) {
    const std::string text = error.what();
    CHECK(text.find("\"f\"") != std::string::npos);
    CHECK(text.find("not") != std::string::npos);
  }
}

TEST_CASE("a grammar may write the control tokens that it names, and no others") {
  auto vocabulary = tests::small_bpe({});
  *std::find(vocabulary.tokens.begin(), vocabulary.tokens.end(), "<|end|>") = "[CALL]";
  vocabulary.eos = -1;
  vocabulary.eog.clear();
  const auto tokenizer = make_tokenizer(std::move(vocabulary));
  const int32_t call = tokenizer->find("[CALL]");
  REQUIRE(tokenizer->type(call) == TokenType::kControl);
  GrammarSpec spec;
  spec.source = "root ::= \"[CALL]x\"";
  GrammarCache cache(*tokenizer);
  const auto may_come = [&] {
    const auto grammar = cache.get(spec);
    TokenMask mask;
    grammar->fill_mask(grammar->start(), mask);
    return ((mask[static_cast<size_t>(call) / 32] >> (call % 32)) & 1u) != 0;
  };
  CHECK_FALSE(may_come());
  spec.control_tokens = {"[CALL]", "[OTHER]"};
  CHECK(may_come());
  GrammarMatcher matcher(cache.get(spec), spec, *tokenizer);
  matcher.accept(call);
  matcher.accept(tokenizer->find("x"));
  CHECK(matcher.is_finished());
}

TEST_CASE("a trigger inside the thinking does not count, without thinking it counts at once") {
  const auto tokenizer = make_tokenizer(tests::small_bpe({}));
  GrammarSpec spec;
  spec.source = "root ::= \"[x]\"";
  spec.triggers = {"["};
  spec.start_after = "</t>";
  spec.may_begin_with = "<t>";
  GrammarCache cache(*tokenizer);
  const auto is_active_after = [&](std::string_view text) {
    GrammarMatcher matcher(cache.get(spec), spec, *tokenizer);
    for (const int32_t token : tokenizer->encode(text, AddSpecial::kNo, SpecialTokens::kAsText))
      matcher.accept(token);
    return matcher.is_active();
  };
  CHECK_FALSE(is_active_after("<t>a[b"));
  CHECK_FALSE(is_active_after("<t>a[b</t> text"));
  CHECK(is_active_after("<t>a[b</t> text["));
  CHECK(is_active_after("text["));
  CHECK(is_active_after("  ["));
  CHECK_FALSE(is_active_after("<text"));
}

}  // namespace dsctl::engine
