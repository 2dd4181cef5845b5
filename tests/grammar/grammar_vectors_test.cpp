#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <regex>

#include "engine/error.h"
#include "engine/grammar/gbnf.h"
#include "engine/grammar/json_schema.h"
#include "tests/support/catch.h"
#include "tests/support/grammar_text.h"
#include "tests/support/paths.h"

namespace dsctl {
namespace {

using engine::Error;
using engine::grammar::parse_gbnf;
using engine::grammar::parse_json_schema;
using engine::grammar::Program;
using engine::grammar::Syntax;
using nlohmann::json;
using tests::TextMatcher;

json read_vectors(const char* name) {
  const auto dir = tests::shared_dir();
  if (dir.empty()) {
    WARN("the shared test data is not there");
    return {};
  }
  std::ifstream in(dir / "data/vectors" / name);
  return json::parse(in);
}

TEST_CASE("grammars and schemas accept what llama.cpp's tests say") {
  const json vectors = read_vectors("grammar_cases.json");
  if (vectors.is_null()) return;
  size_t n_texts = 0;
  for (const json& entry : vectors["cases"]) {
    const auto source = entry["source"].get<std::string>();
    INFO(entry["desc"].get<std::string>() << ": " << source);
    const bool is_schema = entry["kind"] == "schema";
    TextMatcher matcher(is_schema ? parse_json_schema(source) : parse_gbnf(source));
    for (const json& text : entry["pass"]) {
      INFO("text: " << text);
      CHECK(matcher.accepts(text.get<std::string>()));
      ++n_texts;
    }
    for (const json& text : entry["fail"]) {
      INFO("text: " << text);
      CHECK_FALSE(matcher.accepts(text.get<std::string>()));
      ++n_texts;
    }
  }
  CHECK(n_texts == 351);
  for (const json& entry : vectors["must_not_build"]) {
    INFO(entry["why"]);
    CHECK_THROWS_AS(Program::compile(parse_gbnf(entry["grammar"].get<std::string>())), Error);
  }
}

TEST_CASE("schemas allow the texts that llama.cpp's own conversions allow") {
  const json vectors = read_vectors("schema_gbnf_cases.json");
  if (vectors.is_null()) return;
  // Where llama.cpp's conversion is known to differ, and why. (Everywhere it allows exponents that
  // no double has.)
  const std::map<std::string, std::string> wrong{
      {"regexp quote", "writes a quote inside a string without its backslash"},
      {"regexp", "\".\" matches quotes and backslashes as they are"},
      {"optional props with empty name", "its root is the schema of the empty name"}};
  const std::map<std::string, std::string> wider{
      {"min -5", "allows -0"},
      {"min -123", "allows -0"},
      {"max -5", "allows numbers with leading zeros"},
      {"min -123 max 42", "allows -0"},
      {"min -10 max 10", "allows -0"},
      {"min + max items with min + max values across zero", "allows -0"}};
  const std::regex large_exponent("[0-9][eE][-+]?[0-9]{3}");
  std::mt19937 random(7);
  for (const json& entry : vectors["cases"]) {
    const auto name = entry["name"].get<std::string>();
    INFO(name << ": " << entry["schema"].get<std::string>());
    if (entry["status"] == "FAILURE") {
      CHECK_THROWS_AS(parse_json_schema(entry["schema"].get<std::string>()), Error);
      continue;
    }
    if (wrong.contains(name)) continue;
    TextMatcher ours(parse_json_schema(entry["schema"].get<std::string>()));
    TextMatcher theirs(parse_gbnf(entry["expected_gbnf"].get<std::string>()));
    for (int i = 0; i < 200; ++i) {
      if (const auto text = ours.random_text(random, 400); text) {
        INFO("ours: " << *text);
        CHECK(theirs.accepts(*text));
      }
      if (const auto text = theirs.random_text(random, 400);

          text && !wider.contains(name) && json::accept(*text) &&
          !std::regex_search(*text, large_exponent)) {
        INFO("theirs: " << *text);
        CHECK(ours.accepts(*text));
      }
    }
  }
}

}  // namespace
}  // namespace dsctl
