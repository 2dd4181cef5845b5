#include "engine/tokenizer/pretokenize.h"

#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "engine/tokenizer/unicode.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/tokenizer_text.h"

namespace dsctl::engine {

namespace {

std::vector<uint32_t> split(const PreTokenizer& pre_tokenizer, std::string_view text) {
  std::vector<uint32_t> ends;
  pre_tokenizer.split(text, ends);
  return ends;
}

std::vector<std::string> pieces(std::string_view name, std::string_view text) {
  std::vector<std::string> out;
  uint32_t begin = 0;
  for (const uint32_t end : split(*make_pre_tokenizer(*find_pre_tokenizer(name)), text)) {
    out.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return out;
}

using Pieces = std::vector<std::string>;

/// Code points whose classes PCRE2 sees otherwise than our table, which is of Unicode 16: it
/// depends on the library's version which.
std::vector<bool> find_disputed() {
  std::vector<bool> disputed(0x110000);
  constexpr std::pair<std::string_view, ClassMask> kClasses[] = {
      {R"(\p{Lu})", kLu},    {R"(\p{Ll})", kLl},         {R"(\p{Lt})", kLt},
      {R"(\p{Lm})", kLm},    {R"(\p{Lo})", kLo},         {R"(\p{M})", kMark},
      {R"(\p{N})", kNumber}, {R"(\p{P})", kPunctuation}, {R"(\p{S})", kSymbol},
      {R"(\s)", kWhiteSpace}};
  for (const auto& [regex, mask] : kClasses) {
    const auto splitter = make_regex_splitter({.name = "", .regexes = {&regex, 1}});
    // Every code point between two of U+E000 (private use): an end before it means a match.
    std::string text;
    std::vector<std::pair<uint32_t, uint32_t>> places;  // offset, code point
    for (uint32_t c = 0; c < 0x110000; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      text += "\uE000";
      places.emplace_back(static_cast<uint32_t>(text.size()), c);
      append_utf8(c, text);
    }
    const auto ends = split(*splitter, text);
    const std::set<uint32_t> is_end(ends.begin(), ends.end());
    for (const auto& [offset, c] : places) {
      const bool in_table = (UnicodeClasses::instance().of(c) & mask) != 0;
      if (in_table != is_end.contains(offset)) disputed[c] = true;
    }
  }
  return disputed;
}

bool has_disputed(std::string_view text) {
  static const std::vector<bool> disputed = find_disputed();
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const CodePoint c = decode_utf8(p, end);
    if (disputed[c.value]) return true;
    p += c.n_bytes;
  }
  return false;
}

}  // namespace

TEST_CASE("every scanner splits like the regexes that it stands for") {
  int n_scanners = 0;
  for (const std::string_view name :
       {"gpt-2", "smollm", "llama-bpe", "qwen2", "deepseek-v3", "gpt-4o", "tekken"}) {
    const PreTokenizerSpec& spec = *find_pre_tokenizer(name);
    const auto scanner = make_scanner(spec);
    REQUIRE(scanner != nullptr);
    ++n_scanners;
    const auto regexes = make_regex_splitter(spec);
    tests::RandomText random(17);
    int n_compared = 0;
    for (int i = 0; i < 20'000; ++i) {
      const std::string text = random.next(1 + i % 40, i % 4 == 3);
      if (has_disputed(text)) continue;
      ++n_compared;
      if (split(*scanner, text) == split(*regexes, text)) continue;
      FAIL(name << ": text " << i << " splits otherwise: " << text);
    }
    CHECK(n_compared > 10'000);
  }
  CHECK(n_scanners == 7);
}

TEST_CASE("every pre-tokenizer covers the whole text in ascending pieces") {
  for (const PreTokenizerSpec& spec : all_pre_tokenizers()) {
    const auto pre_tokenizer = make_pre_tokenizer(spec);
    CHECK(split(*pre_tokenizer, "").empty());
    tests::RandomText random(3);
    for (int i = 0; i < 300; ++i) {
      const std::string text = random.next(20, i % 2 == 1);
      const auto ends = split(*pre_tokenizer, text);
      INFO(spec.name << ": " << text);
      REQUIRE((text.empty() || (!ends.empty() && ends.back() == text.size())));
      REQUIRE(std::ranges::is_sorted(ends, std::less_equal()));
    }
  }
}

TEST_CASE("the table of pre-tokenizers says what the specification's list says") {
  const auto shared = tests::shared_dir();
  if (shared.empty()) {
    WARN("no shared test data: not compared");
    return;
  }
  std::ifstream file(shared / "data/vectors/pretokenizers.json");
  const auto list = nlohmann::json::parse(file).at("pre");
  CHECK(list.size() == 52);
  for (const auto& [name, entry] : list.items()) {
    INFO(name);
    const PreTokenizerSpec* spec = find_pre_tokenizer(name);
    REQUIRE(spec != nullptr);
    CHECK(spec->ignore_merges == entry.at("ignore_merges").get<bool>());
    CHECK(spec->adds_bos == entry.at("add_bos").get<bool>());
    if (name == "kimi-k2") continue;  // its class intersections are no syntax of PCRE2 10.42
    std::vector<std::string> texts = entry.at("regexes");
    const std::vector<std::string_view> regexes(texts.begin(), texts.end());
    const auto expected = make_regex_splitter({.name = name, .regexes = regexes});
    const auto actual = make_pre_tokenizer(*spec);
    tests::RandomText random(5);
    for (int i = 0; i < 500; ++i) {
      const std::string text = random.next(30, false);
      if (has_disputed(text)) continue;
      if (split(*actual, text) != split(*expected, text)) FAIL("splits otherwise: " << text);
    }
  }
}

TEST_CASE("white space goes with the word that follows, but for its last character") {
  CHECK(pieces("gpt-2", "a   b") == Pieces{"a", "  ", " b"});
  CHECK(pieces("gpt-2", "a   ") == Pieces{"a", "   "});
  CHECK(pieces("llama-bpe", "a \n\n  b") == Pieces{"a", " \n\n", " ", " b"});
  CHECK(pieces("llama-bpe", "\tx 1234") == Pieces{"\tx", " ", "123", "4"});
  CHECK(pieces("qwen2", "It'S 12!\n") == Pieces{"It", "'S", " ", "1", "2", "!\n"});
  CHECK(pieces("gpt-2", "It'S") == Pieces{"It", "'", "S"});
}

TEST_CASE("kimi-k2 keeps Han characters apart from other letters") {
  CHECK(pieces("kimi-k2", "Hello世界abc") == Pieces{"Hello", "世界", "abc"});
  CHECK(pieces("kimi-k2", "HELLOWorld's 2024年") == Pieces{"HELLOWorld's", " ", "202", "4", "年"});
  CHECK(pieces("kimi-k2", " 々かな") == Pieces{" ", "々", "かな"});
}

TEST_CASE("deepseek-v3 leaves what no expression matches in one piece") {
  CHECK(pieces("deepseek-v3",
               "\x01\x02"
               "a") == Pieces{"\x01",
                              "\x02"
                              "a"});
  CHECK(pieces("deepseek-v3", "\x01\x02") == Pieces{"\x01\x02"});
  CHECK(pieces("deepseek-v3", "a.b深度abc1234") == Pieces{"a", ".b", "深度", "abc", "123", "4"});
}

TEST_CASE("newer pre-tokenizers split as their expressions say") {
  CHECK(pieces("qwen35", "e\u0301te\u0301 42 a!\u0301\n") ==
        Pieces{"e\u0301te\u0301", " ", "4", "2", " a", "!\u0301", "\n"});
  CHECK(pieces("qwen2", "e\u0301") == Pieces{"e", "\u0301"});
  CHECK(pieces("seed-coder", "a!!\n\nb") == Pieces{"a", "!!", "\n\n", "b"});
  CHECK(pieces("bailingmoe", "It'LL  x\n\n") == Pieces{"It", "'LL", " ", " x", "\n\n"});
  CHECK(pieces("minicpm5", "x 12345") == Pieces{"x", " ", "123", "45"});
  CHECK(pieces("chameleon", "a IMGIMGABZ<sentinel:12>  b!?") ==
        Pieces{"a", " ", "IMGIMGABZ", "<", "sentinel", ":", "1", "2", ">", "  ", "b", "!", "?"});
  CHECK(make_scanner(*find_pre_tokenizer("lfm2")) != nullptr);
}

TEST_CASE("an unknown pre-tokenizer is not found") {
  CHECK(find_pre_tokenizer("gpt-2x") == nullptr);
}

// A megabyte of one character, and of near misses, must not make any list quadratic.
TEST_CASE("no pre-tokenizer takes long for a long run") {
  constexpr size_t kBytes = 1 << 20;
  std::string mixed;
  while (mixed.size() < kBytes)
    mixed += " \n";
  const std::string texts[] = {std::string(kBytes, 'a'),       std::string(kBytes, 'A'),
                               std::string(kBytes, ' ') + "x", std::string(kBytes, '\n') + "x",
                               std::string(kBytes, '!'),       std::string(kBytes, '7'),
                               std::string(kBytes, '\x80'),    mixed,
                               "a" + std::string(kBytes, '\t')};
  std::set<std::vector<std::string_view>> seen;  // many names share a list
  for (const PreTokenizerSpec& spec : all_pre_tokenizers()) {
    if (!seen.emplace(spec.regexes.begin(), spec.regexes.end()).second) continue;
    const auto pre_tokenizer = make_pre_tokenizer(spec);
    for (const std::string& text : texts) {
      const std::clock_t start = std::clock();  // processor time: other programs do not count
      const auto ends = split(*pre_tokenizer, text);
      const double took_s = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
      INFO(spec.name << ": run of " << static_cast<int>(text[1]));
      CHECK(ends.back() == text.size());
      CHECK(took_s < 5);  // measured at most 0.2 s; a quadratic scan takes hours
    }
  }
}

}  // namespace dsctl::engine
