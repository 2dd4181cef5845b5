#include "engine/tokenizer/special_matcher.h"

#include <string>

#include "tests/support/catch.h"

namespace dsctl::engine {

namespace {

/// All matches, as a slow search finds them: leftmost, then longest.
std::vector<int32_t> slow_search(const std::vector<std::string>& texts, std::string_view in) {
  std::vector<int32_t> ids;
  for (size_t at = 0; at < in.size();) {
    int32_t best = -1;
    size_t n_best = 0;
    for (size_t i = 0; i < texts.size(); ++i) {
      if (texts[i].size() > n_best && in.substr(at).starts_with(texts[i])) {
        best = static_cast<int32_t>(i);
        n_best = texts[i].size();
      }
    }
    if (best >= 0) ids.push_back(best);
    at += best >= 0 ? n_best : 1;
  }
  return ids;
}

}  // namespace

TEST_CASE("the matcher finds what a slow search finds") {
  const std::vector<std::string> texts = {"ab", "abc", "b", "ca", "\xE2\x96\x81x", "cab", "aaaa"};
  SpecialMatcher matcher;
  for (size_t i = 0; i < texts.size(); ++i)
    matcher.add(texts[i], static_cast<int32_t>(i));
  uint32_t state = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string text;
    for (int i = 0; i < 12; ++i) {
      state = state * 1664525 + 1013904223;
      text += "abc\xE2\x96\x81x"[state >> 24 & 7 ? (state >> 24) % 7 : 0];
    }
    std::vector<int32_t> found;
    for (size_t at = 0;;) {
      const auto match = matcher.find(text, at);
      if (match.id < 0) break;
      CHECK(text.substr(match.begin, match.end - match.begin) ==
            texts[static_cast<size_t>(match.id)]);
      found.push_back(match.id);
      at = match.end;
    }
    REQUIRE(found == slow_search(texts, text));
  }
}

TEST_CASE("a matcher without texts finds nothing, an empty text is no token") {
  SpecialMatcher matcher;
  matcher.add("", 3);
  CHECK(matcher.find("abc", 0).id == -1);
}

}  // namespace dsctl::engine
