#include "engine/tokenizer/unicode.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::engine {

namespace {

std::string encoded(uint32_t code_point) {
  std::string out;
  append_utf8(code_point, out);
  return out;
}

}  // namespace

TEST_CASE("UTF-8 of every code point is read back") {
  for (uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    const std::string text = encoded(c);
    const CodePoint read = decode_utf8(text.data(), text.data() + text.size());
    if (!read.valid || read.value != c || read.n_bytes != static_cast<int>(text.size())) FAIL(c);
  }
}

TEST_CASE("invalid UTF-8 is told from valid byte by byte") {
  for (const std::string_view bad :
       {"\x80", "\xC0\xAF", "\xC1\xBF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xE4\xBD", "\xC3"}) {
    const CodePoint c = decode_utf8(bad.data(), bad.data() + bad.size());
    CHECK_FALSE(c.valid);
    CHECK(c.n_bytes == 1);
    CHECK(c.value == 0xFFFD);
  }
}

// Expected values: Python 3.11, bytes.decode(errors="replace").
TEST_CASE("replacing invalid UTF-8 gives one U+FFFD for each maximal part") {
  CHECK(replace_invalid_utf8("ok é 你 👍") == "ok é 你 👍");
  CHECK(replace_invalid_utf8("a\xE4\xBD"
                             "b") == "a\uFFFDb");
  CHECK(replace_invalid_utf8("\xF0\x9F\x91") == "\uFFFD");
  CHECK(replace_invalid_utf8("\xED\xA0\x80") == "\uFFFD\uFFFD\uFFFD");
  CHECK(replace_invalid_utf8("\xC0\x80\xFF") == "\uFFFD\uFFFD\uFFFD");
  CHECK(replace_invalid_utf8("\xF0\x9F\xF0\x9F\x91\x8D") == "\uFFFD👍");
}

TEST_CASE("the incomplete tail of UTF-8 is measured") {
  CHECK(incomplete_utf8_tail("") == 0);
  CHECK(incomplete_utf8_tail("abc") == 0);
  CHECK(incomplete_utf8_tail("é") == 0);
  CHECK(incomplete_utf8_tail("a\xC3") == 1);
  CHECK(incomplete_utf8_tail("a\xE4\xBD") == 2);
  CHECK(incomplete_utf8_tail("\xF0\x9F\x91") == 3);
  CHECK(incomplete_utf8_tail("\xE0\x80") == 0);  // can never become valid
  CHECK(incomplete_utf8_tail("\x80\x80\x80") == 0);
}

TEST_CASE("classes of code points equal the specification's categories") {
  const auto shared = tests::shared_dir();
  if (shared.empty()) {
    WARN("no shared test data: not compared");
    return;
  }
  std::ifstream file(shared / "data/vectors/unicode_categories.json");
  const auto categories = nlohmann::json::parse(file);
  const std::pair<const char*, ClassMask> masks[] = {{"L", kLetter},
                                                     {"M", kMark},
                                                     {"N", kNumber},
                                                     {"P", kPunctuation},
                                                     {"S", kSymbol},
                                                     {"Lu", kLu},
                                                     {"Ll", kLl},
                                                     {"Lt", kLt},
                                                     {"Lm", kLm},
                                                     {"Lo", kLo},
                                                     {"White_Space", kWhiteSpace},
                                                     {"Z", static_cast<ClassMask>(Category::Z)}};
  // The list is of Unicode 14, our table of 16: what was unassigned then may be anything now.
  std::vector<bool> assigned(0x110000, true);
  for (const auto& range : categories.at("C")) {
    for (uint32_t c = range[0]; c <= range[1].get<uint32_t>(); ++c)
      assigned[c] = false;
  }
  const UnicodeClasses& classes = UnicodeClasses::instance();
  for (const auto& [name, mask] : masks) {
    std::vector<bool> expected(0x110000);
    for (const auto& range : categories.at(name)) {
      for (uint32_t c = range[0]; c <= range[1].get<uint32_t>(); ++c)
        expected[c] = true;
    }
    int n_wrong = 0;
    for (uint32_t c = 0; c < 0x110000; ++c) {
      if (!assigned[c] && !expected[c]) continue;
      n_wrong += ((classes.of(c) & mask) != 0) != expected[c] ? 1 : 0;
    }
    INFO(name);
    CHECK(n_wrong == 0);
  }
}

TEST_CASE("classes know the characters of Unicode 16 and the limits of white space") {
  const UnicodeClasses& classes = UnicodeClasses::instance();
  CHECK(classes.of(0x1FA77) == kSymbol);  // pink heart, Unicode 15
  CHECK(classes.of(0x1FAC6) == kSymbol);  // fingerprint, Unicode 16
  CHECK(classes.of(0x2EBF0) == kLo);      // CJK extension I, Unicode 15.1
  CHECK(classes.of(0x10FFFF) == 0);
  CHECK(classes.of(0x180E) == 0);  // white space until Unicode 6.3
  CHECK(classes.of(0x200B) == 0);
  CHECK(classes.of(0x0) == 0);
}

}  // namespace dsctl::engine
