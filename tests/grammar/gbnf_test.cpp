#include "engine/grammar/gbnf.h"

#include "engine/error.h"
#include "tests/support/catch.h"
#include "tests/support/grammar_text.h"

namespace dsctl {
namespace {

using engine::Error;
using engine::grammar::parse_gbnf;
using engine::grammar::Program;
using tests::TextMatcher;

TextMatcher matcher_of(std::string_view text) {
  return TextMatcher(parse_gbnf(text));
}

TEST_CASE("a GBNF literal, class and repetition match what they say") {
  auto matcher = matcher_of("root ::= \"a\\\"\\x41\\u00e9\" [^0-9\\n]{2,3} [x-z]* .? # end");
  CHECK(matcher.accepts("a\"A\xC3\xA9--"));
  CHECK(matcher.accepts("a\"A\xC3\xA9--\xF0\x9F\x98\x80xyz\n"));
  CHECK_FALSE(matcher.accepts("a\"A\xC3\xA9-"));
  CHECK_FALSE(matcher.accepts("a\"A\xC3\xA9-1"));
  CHECK_FALSE(matcher.accepts("a\"A\xC3--"));
}

TEST_CASE("a class matches whole code points and never broken UTF-8") {
  auto matcher = matcher_of("root ::= [^a]+");
  CHECK(matcher.accepts("\xED\x9F\xBF\xEE\x80\x80\xF4\x8F\xBF\xBF"));
  CHECK(matcher.is_alive("\xF0\x9F"));  // the beginning of a character
  CHECK_FALSE(matcher.accepts("\xF0\x9F"));
  for (const char* broken : {"\x80", "\xC0\x80", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x80\x80\x80",
                             "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF"}) {
    CHECK_FALSE(matcher.is_alive(broken));
  }
}

TEST_CASE("counted repetitions count, also within each other and around rules") {
  auto matcher = matcher_of(R"(
root ::= line{3} rest
line ::= ("ab"{5,7} | digit{10}) "\n"
rest ::= (digit "," ){6,}
digit ::= [0-9])");
  const std::string three = "ababababab\n0123456789\nababababababab\n";
  CHECK(matcher.accepts(three + "1,2,3,4,5,6,"));
  CHECK(matcher.accepts(three + "1,2,3,4,5,6,7,8,9,0,"));
  CHECK_FALSE(matcher.accepts(three + "1,2,3,4,5,"));
  CHECK_FALSE(matcher.is_alive("abababababababab"));
  CHECK_FALSE(matcher.is_alive("012345678\n"));
}

TEST_CASE("recursion nests, and at a rule's end it needs no stack") {
  auto nested = matcher_of("root ::= \"(\" root \")\" | \"x\"");
  CHECK(nested.accepts(std::string(500, '(') + "x" + std::string(500, ')')));
  CHECK_FALSE(nested.accepts("((x)"));
  auto list = matcher_of("root ::= \"a\" root | \"a\"");
  CHECK(list.accepts(std::string(10'000, 'a')));
  CHECK(list.automaton().n_states() < 10);
}

TEST_CASE("rules that can be empty are found in every place") {
  auto matcher = matcher_of("root ::= (a b)* \"x\"\na ::= \"a\"?\nb ::= | \"b\"");
  CHECK(matcher.accepts("x"));
  CHECK(matcher.accepts("abbaabx"));
  auto bounded = matcher_of("root ::= (\"a\"?){3} \"x\"");
  CHECK(bounded.accepts("x"));
  CHECK(bounded.accepts("aaax"));
  CHECK_FALSE(bounded.is_alive("aaaa"));
}

TEST_CASE("errors in GBNF name the place") {
  const std::pair<const char*, const char*> cases[] = {
      {"root = \"a\"", "line 1, column 6: found \"=\", expected \"::=\""},
      {"root ::= \"a", "line 1, column 10: a literal without its closing quote"},
      {"root ::= [a", "a class without its closing"},
      {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1: rule \"root\" is defined twice"},
      {"root ::= foo", "line 1, column 10: rule \"foo\" is not defined"},
      {"top ::= \"a\"", "there is no rule \"root\""},
      {"root ::= * \"a\"", "with nothing before it to repeat"},
      {"root ::= \"a\"{3,2}", "maximum is under its minimum"},
      {"root ::= \"a\"{999999999}", "more than 100000 repetitions"},
      {"root ::= (\"a\"", "expected \")\""},
      {"root ::= \"\\q\"", "unknown escape"},
      {"root ::= \"\\x4\"", "expected 2 hex digits"},
      {"root ::= [z-a]", "end is before its beginning"},
      {"root ::= <[1]>", "name a token"},
      {"", "there is no rule \"root\""}};
  for (const auto& [text, message] : cases) {
    INFO(text);
    CHECK_THROWS_WITH(Program::compile(parse_gbnf(text)), Catch::Contains(message));
  }
  CHECK_THROWS_WITH(parse_gbnf("root ::= " + std::string(300, '(')),
                    Catch::Contains("nested parentheses"));
  CHECK_THROWS_WITH(Program::compile(parse_gbnf("root ::= a\na ::= b? a \"x\"\nb ::= \"b\"")),
                    Catch::Contains("left recursion"));
  CHECK_THROWS_WITH(
      Program::compile(parse_gbnf("root ::= " + std::string(12, '(') + "[a-b]{99} \"c\"" +
                                  [] {
                                    std::string tail;
                                    for (int i = 0; i < 12; ++i)
                                      tail += "){4}";
                                    return tail;
                                  }())),
      Catch::Contains("larger than"));
}

TEST_CASE("an ambiguous grammar ends in an error, not in all memory") {
  auto matcher = matcher_of("root ::= a a a a a a \"!\"\na ::= \"(\" a \")\" | \"(\" a | [()]*");
  CHECK_THROWS_WITH(matcher.accepts(std::string(5'000, '(')), Catch::Contains("less ambiguous"));
}

TEST_CASE("equivalent states allow the same short texts") {
  auto matcher = matcher_of("root ::= \"[\" [a-c]{20,60} \"]\" | \"<\" ([x] [y]?){70} \">\"");
  auto& automaton = matcher.automaton();
  constexpr int kBytes = 8;
  std::mt19937 random(3);
  for (int n = 0; n < 70; ++n) {
    for (const std::string& text : {"[" + std::string(static_cast<size_t>(n), 'b'),
                                    "<" + std::string(static_cast<size_t>(n), 'x')}) {
      const auto state = automaton.next(automaton.start(), text);
      if (state == engine::grammar::kDead) continue;
      const auto same = automaton.equivalent(state, kBytes);
      for (int i = 0; i < 50; ++i) {
        std::string next;
        for (int k = 0; k < kBytes; ++k)
          next += "abcxy]>"[random() % 7];
        for (size_t length = 1; length <= next.size(); ++length) {
          const auto a = automaton.next(state, std::string_view(next).substr(0, length));
          const auto b = automaton.next(same, std::string_view(next).substr(0, length));
          CHECK((a == engine::grammar::kDead) == (b == engine::grammar::kDead));
          CHECK(automaton.is_accepting(a) == automaton.is_accepting(b));
        }
      }
    }
  }
  // In the middle of a long repetition all states are one.
  const auto at_30 = automaton.next(automaton.start(), "[" + std::string(30, 'a'));
  const auto at_40 = automaton.next(automaton.start(), "[" + std::string(40, 'a'));
  CHECK(at_30 != at_40);
  CHECK(automaton.equivalent(at_30, kBytes) == automaton.equivalent(at_40, kBytes));
}

}  // namespace
}  // namespace dsctl
