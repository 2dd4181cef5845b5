#include "engine/grammar/json_schema.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "engine/error.h"
#include "engine/grammar/number_range.h"
#include "tests/support/catch.h"
#include "tests/support/grammar_text.h"

namespace dsctl {
namespace {

using engine::Error;
using engine::grammar::DecimalBound;
using engine::grammar::parse_json_schema;
using nlohmann::json;
using tests::TextMatcher;

TextMatcher matcher_of(std::string_view schema) {
  return TextMatcher(parse_json_schema(schema));
}

TEST_CASE("integer bounds hold for every integer near them") {
  for (int min = -25; min <= 25; min += 3) {
    for (int max = min; max <= min + 130; max += 11) {
      auto matcher =
          matcher_of(json{{"type", "integer"}, {"minimum", min}, {"maximum", max}}.dump());
      for (int value = min - 15; value <= max + 15; ++value) {
        INFO(min << " <= " << value << " <= " << max);
        CHECK(matcher.accepts(std::to_string(value)) == (value >= min && value <= max));
      }
    }
  }
  for (int bound = -120; bound <= 120; bound += 7) {
    auto above = matcher_of(json{{"type", "integer"}, {"exclusiveMinimum", bound}}.dump());
    auto below = matcher_of(json{{"type", "integer"}, {"exclusiveMaximum", bound}}.dump());
    auto half = matcher_of(json{{"type", "integer"}, {"minimum", bound + 0.5}}.dump());
    for (int value = bound - 130; value <= bound + 130; ++value) {
      INFO(value << " against " << bound);
      CHECK(above.accepts(std::to_string(value)) == (value > bound));
      CHECK(below.accepts(std::to_string(value)) == (value < bound));
      CHECK(half.accepts(std::to_string(value)) == (value > bound));
    }
  }
}

/// `thousandths` as a decimal with its trailing zeros cut or not.
std::string decimal(int thousandths, bool cut) {
  std::string text = std::to_string(std::abs(thousandths) + 1000);
  text = std::to_string(std::abs(thousandths) / 1000) + "." + text.substr(text.size() - 3);
  if (cut) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return thousandths < 0 ? "-" + text : text;
}

TEST_CASE("number bounds hold for decimals near them") {
  const int bounds[] = {-12'000, -2'500, -1'000, -250,  -1,    0,     5,
                        120,     250,    999,    1'000, 1'250, 10'010};
  for (const int low : bounds) {
    for (const int high : bounds) {
      if (high < low) continue;
      for (const bool exclusive : {false, true}) {
        json schema{{"type", "number"}};
        schema[exclusive ? "exclusiveMinimum" : "minimum"] = low / 1000.0;
        schema[exclusive ? "exclusiveMaximum" : "maximum"] = high / 1000.0;
        if (exclusive && low == high) {
          CHECK_THROWS_AS(parse_json_schema(schema.dump()), Error);
          continue;
        }
        auto matcher = matcher_of(schema.dump());
        for (const int near : bounds) {
          for (int value = near - 12; value <= near + 12; ++value) {
            if (value == 0) continue;  // "0" and "0.000" are both there; "-0" is not
            const bool inside =
                exclusive ? value > low && value < high : value >= low && value <= high;
            INFO(schema << ": " << decimal(value, true));
            CHECK(matcher.accepts(decimal(value, true)) == inside);
            CHECK(matcher.accepts(decimal(value, false)) == inside);
          }
        }
      }
    }
  }
}

TEST_CASE("a decimal bound is read exactly") {
  const auto bound = DecimalBound::parse("-1.50e1", false);
  REQUIRE(bound);
  CHECK(bound->negative);
  CHECK(bound->whole == "15");
  CHECK(bound->fraction.empty());
  CHECK(DecimalBound::parse("2.5e-3", false)->fraction == "0025");
  CHECK(DecimalBound::parse("1e3", false)->whole == "1000");
  CHECK_FALSE(DecimalBound::parse("1e300", false));
}

TEST_CASE("strings: pattern, format and length") {
  auto pattern = matcher_of(R"({"type":"string","pattern":"^\\d{3}-[A-Z\"\\\\]+(x|yy)?$"})");
  CHECK(pattern.accepts(R"("123-AZ")"));
  CHECK(pattern.accepts(R"("123-\"\\yy")"));
  CHECK_FALSE(pattern.accepts(R"("123-a")"));
  auto search = matcher_of(R"({"type":"string","pattern":"ab"})");
  CHECK(search.accepts(R"("\nxxab\"yy")"));
  CHECK_FALSE(search.accepts(R"("ba")"));
  auto date = matcher_of(R"({"type":"string","format":"date-time"})");
  CHECK(date.accepts(R"("2026-02-28T23:59:59.123Z")"));
  CHECK_FALSE(date.accepts(R"("2026-13-28T23:59:59Z")"));
  auto length = matcher_of(R"({"type":"string","minLength":5,"maxLength":600})");
  CHECK(length.accepts("\"" + std::string(600, 'x') + "\""));
  CHECK_FALSE(length.accepts("\"" + std::string(601, 'x') + "\""));
  CHECK_FALSE(length.accepts("\"xxxx\""));
}

TEST_CASE("objects: order, optional properties and others") {
  auto matcher = matcher_of(R"({"type":"object","properties":{"a":{"type":"integer"},
      "b":{"type":"boolean"},"c":{"type":"null"}},"required":["b"],"additionalProperties":{"type":"string"}})");
  CHECK(matcher.accepts(R"({"b":true})"));
  CHECK(matcher.accepts(R"({ "b":true, "a":1,"c":null , "zz": "x"})"));
  CHECK(matcher.accepts(R"({"b":false,"ab":"y","":"z"})"));
  CHECK_FALSE(matcher.accepts(R"({"a":1,"b":true})"));
  CHECK_FALSE(matcher.accepts(R"({"b":true,"b":"x"})"));
  CHECK_FALSE(matcher.accepts(R"({"b":true,"a":"x"})"));
  CHECK_FALSE(matcher.accepts(R"({"b":true,})"));
  auto closed = matcher_of(R"({"properties":{"a":{}}})");
  CHECK(closed.accepts(R"({"a":[1,{"x":null}]})"));
  CHECK(closed.accepts("{}"));
  CHECK_FALSE(closed.is_alive(R"({"b")"));
}

TEST_CASE("references recurse") {
  auto tree = matcher_of(R"({"$ref":"#/$defs/node","$defs":{"node":{"type":"object",
      "properties":{"value":{"type":"integer"},"children":{"type":"array","items":{"$ref":"#/$defs/node"}}},
      "required":["value","children"]}}})");
  CHECK(tree.accepts(R"({"value":1,"children":[{"value":2,"children":[]}]})"));
  CHECK_FALSE(tree.accepts(R"({"value":1,"children":[{"value":2}]})"));
  CHECK_THROWS_WITH(TextMatcher(parse_json_schema(R"({"$ref":"#"})")),
                    Catch::Contains("left recursion"));
}

TEST_CASE("what a schema can't have is named with its place") {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"type":"object","properties":{"a":{"type":"string","minProperties":1}}})",
       "#/properties/a: the keyword \"minProperties\" is not supported here"},
      {R"({"type":"array","contains":{}})", "\"contains\" is not supported"},
      {R"({"not":{}})", "\"not\" is not supported"},
      {R"({"if":{},"then":{}})", "\"if\" is not supported"},
      {R"({"type":"integer","multipleOf":3})", "\"multipleOf\" is not supported"},
      {R"({"type":"string","format":"zip"})", "\"format\" with \"zip\" is not supported"},
      {R"x({"type":"string","pattern":"a(?=b)"})x", "look-around"},
      {R"x({"type":"string","pattern":"a\\1"})x", "column 3"},
      {R"({"type":"string","minLength":3,"maxLength":2})", "under \"minLength\""},
      {R"({"type":"integer","minimum":3,"maximum":2})", "no number is within the bounds"},
      {R"({"$ref":"http://x/y"})", "points outside the schema"},
      {R"({"$ref":"#/definitions/x"})", "points to nothing"},
      {R"({"type":"object","required":["a"]})", "\"a\", which is no property"},
      {R"({"enum":[]})", "expected a list of values"},
      {R"({"type":"kaboom"})", "unknown type \"kaboom\""},
      {R"({"type":["string",3]})", "expected strings"},
      {R"([1])", "expected a schema"},
      {R"({"type")", "no JSON"},
      {R"(false)", "expected a schema"}};
  for (const auto& [schema, message] : cases) {
    INFO(schema);
    CHECK_THROWS_WITH(parse_json_schema(schema), Catch::Contains(message));
  }
  std::string deep;
  for (int i = 0; i < 5'000; ++i)
    deep += R"({"items":)";
  CHECK_THROWS_WITH(parse_json_schema(deep), Catch::Contains("nested too deeply"));
}

/// A schema with a little of everything.
json random_schema(std::mt19937& random, int depth) {
  const auto pick = [&](uint32_t n) { return static_cast<int>(random() % n); };
  switch (pick(depth > 0 ? 12 : 8)) {
    case 0:
      return {{"type", "string"}, {"minLength", pick(4)}, {"maxLength", 4 + pick(40)}};
    case 1:
      return {{"type", "string"}, {"pattern", "^[a-c]{1,9}(-\\d+)?$"}};
    case 2:
      return {{"type", "integer"}, {"minimum", -pick(1000)}, {"maximum", pick(100'000)}};
    case 3:
      return {{"type", "number"},
              {"minimum", -pick(1000) / 8.0},
              {"exclusiveMaximum", 1 + pick(9) / 16.0}};
    case 4:
      return {{"enum", {"a\"\\", nullptr, 3, json::array({1})}}};
    case 5:
      return {{"type", {"boolean", "null"}}};
    case 6:
      return {{"type", "number"}};
    case 7:
      return {{"type", "string"}, {"format", "uuid"}};
    case 8:
    case 9: {
      json items = random_schema(random, depth - 1);
      const int min = pick(3);
      return {{"type", "array"}, {"items", items}, {"minItems", min}, {"maxItems", min + pick(7)}};
    }
    case 10:
      return {{"anyOf", {random_schema(random, depth - 1), random_schema(random, depth - 1)}}};
    default: {
      json schema{{"type", "object"}, {"properties", json::object()}, {"required", json::array()}};
      for (int i = 0; i <= pick(5); ++i) {
        const std::string name = "p" + std::to_string(i);
        schema["properties"][name] = random_schema(random, depth - 1);
        if (pick(2) == 0) schema["required"].push_back(name);
      }
      if (pick(3) == 0) schema["additionalProperties"] = random_schema(random, depth - 1);
      return schema;
    }
  }
}

void check_random_texts(int n_texts, uint32_t seed) {
  std::mt19937 random(seed);
  int n_done = 0;
  while (n_done < n_texts) {
    const std::string schema = random_schema(random, 3).dump();
    INFO(schema);
    TextMatcher matcher(parse_json_schema(schema));
    for (int i = 0; i < 10; ++i) {
      const auto text = matcher.random_text(random, 4000);
      if (!text) continue;
      ++n_done;
      INFO(*text);
      CHECK(json::accept(*text));
    }
  }
}

TEST_CASE("every text of a random schema is JSON") {
  check_random_texts(1'000, 1);
}

TEST_CASE("every text of many random schemas is JSON", "[slow]") {
  check_random_texts(10'000, 2);
}

}  // namespace
}  // namespace dsctl
