#include "engine/tokenizer/tokenizer.h"

#include <ctime>
#include <thread>

#include "engine/error.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/vocabulary.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/tokenizer_text.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {

namespace {

using Ids = std::vector<int32_t>;
using Pieces = std::vector<std::string>;

Pieces pieces_of(const Tokenizer& tokenizer, const Ids& ids) {
  Pieces pieces;
  for (const int32_t id : ids)
    pieces.emplace_back(tokenizer.text(id));
  return pieces;
}

/// Stored texts of the tokens of `text`, special tokens parsed, without BOS.
Pieces tokens(const Tokenizer& tokenizer, std::string_view text,
              SpecialTokens special = SpecialTokens::kParse) {
  return pieces_of(tokenizer, tokenizer.encode(text, AddSpecial::kNo, special));
}

Ids encode(const Tokenizer& tokenizer, std::string_view text) {
  return tokenizer.encode(text, AddSpecial::kYes, SpecialTokens::kParse);
}

/// Processor time: other programs do not count.
double seconds_of(const Tokenizer& tokenizer, const std::string& text) {
  const std::clock_t start = std::clock();
  encode(tokenizer, text);
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

}  // namespace

TEST_CASE("BPE merges the pair of lowest rank first, the leftmost of equals") {
  const auto bpe = make_tokenizer(tests::small_bpe({"a b", "b c", "ab c", "b b"}));
  CHECK(tokens(*bpe, "abc") == Pieces{"abc"});
  CHECK(tokens(*bpe, "bbb") == Pieces{"bb", "b"});
  CHECK(tokens(*bpe, "abbc") == Pieces{"ab", "bc"});
  CHECK(tokens(*bpe, "") == Pieces{});
}

TEST_CASE("BPE takes a whole piece only if merging ends there, unless the vocabulary says so") {
  // "abc" is a token that no order of merges reaches: "b c" comes first, then nothing joins "a".
  auto vocabulary = tests::small_bpe({"b c", "a b"});
  vocabulary.tokens.emplace_back("abc");
  vocabulary.types.push_back(TokenType::kNormal);
  CHECK(tokens(*make_tokenizer(vocabulary), "abc") == Pieces{"a", "bc"});
  vocabulary.pre = "llama-bpe";
  CHECK(tokens(*make_tokenizer(vocabulary), "abc") == Pieces{"abc"});
}

TEST_CASE("BPE goes through merged texts that are no token") {
  auto vocabulary = tests::small_bpe({"a b", "ab c"});
  vocabulary.tokens[256] = "zz";  // where "ab" was
  const auto bpe = make_tokenizer(vocabulary);
  CHECK(tokens(*bpe, "abc") == Pieces{"abc"});
  CHECK(tokens(*bpe, "abd") == Pieces{"a", "b", "d"});
}

TEST_CASE("BPE keeps every byte, also of broken UTF-8") {
  const auto bpe = make_tokenizer(tests::small_bpe({"Ġ a", "Ã ©"}));
  const std::string text = "é a\xFF\xC3 \x80";
  const Ids ids = bpe->encode(text, AddSpecial::kNo, SpecialTokens::kAsText);
  std::string bytes;
  for (const int32_t id : ids)
    bytes += bpe->piece(id, SpecialTokens::kAsText);
  CHECK(bytes == text);
  CHECK(bpe->decode(ids, SpecialTokens::kAsText) == replace_invalid_utf8(text));
}

TEST_CASE("many symbols merge like few") {
  // Pieces of 20 symbols merge by scanning, longer ones by a heap: both must split a period alike.
  const auto bpe = make_tokenizer(tests::small_bpe({"a b", "c a", "ab c", "b c", "abc abc"}));
  const Pieces few = tokens(*bpe, "abcabcabcabcabcabc");
  CHECK(few == Pieces{"abcabc", "abcabc", "abcabc"});
  std::string text;
  for (int i = 0; i < 100; ++i)
    text += "abc";
  CHECK(tokens(*bpe, text) == Pieces(50, "abcabc"));
}

TEST_CASE("control tokens in the text are parsed only when asked, user-defined ones always") {
  const auto bpe = make_tokenizer(tests::small_bpe({}));
  CHECK(tokens(*bpe, "x<|end|><tool>") == Pieces{"x", "<|end|>", "<tool>"});
  CHECK(tokens(*bpe, "x<|end|><tool>", SpecialTokens::kAsText) ==
        Pieces{"x", "<", "|", "e", "n", "d", "|", ">", "<tool>"});
}

TEST_CASE("text never merges into a control token") {
  auto vocabulary = tests::small_bpe({"< |", "<| e", "<|e n", "<|en d", "<|end |", "<|end| >"});
  const auto bpe = make_tokenizer(vocabulary);
  for (const std::string& token : tokens(*bpe, "<|end|>", SpecialTokens::kAsText)) {
    CHECK(bpe->type(bpe->find(token)) != TokenType::kControl);
  }
  const auto spm = make_tokenizer(tests::small_spm({"▁", "<", "s", ">", "<s"}));
  CHECK(tokens(*spm, "<s>", SpecialTokens::kAsText) == Pieces{"▁", "<s", ">"});
}

TEST_CASE("the longest special token at a place is taken") {
  auto vocabulary = tests::small_bpe({});
  for (const char* text : {"<a>", "<a><b>", "<a", ""}) {
    vocabulary.tokens.emplace_back(text);
    vocabulary.types.push_back(TokenType::kUserDefined);
  }
  const auto bpe = make_tokenizer(vocabulary);
  CHECK(tokens(*bpe, "<a><b><a>x<a") == Pieces{"<a><b>", "<a>", "x", "<a"});
  CHECK(bpe->find("") == -1);
}

TEST_CASE("SPM merges by score, ties leftmost, and adds a space where a text begins") {
  const auto spm = make_tokenizer(
      tests::small_spm({"▁he", "ll", "▁hell", "o", "▁hello", "▁", "h", "e", "l", "aa", "a"}));
  CHECK(tokens(*spm, "hello") == Pieces{"▁", "h", "e", "ll", "o"});
  CHECK(tokens(*spm, "aaa") == Pieces{"▁", "aa", "a"});
  const auto ordered =
      make_tokenizer(tests::small_spm({"▁h", "▁he", "ll", "▁hell", "▁hello", "o"}));
  CHECK(tokens(*ordered, "hello") == Pieces{"▁hello"});
  CHECK(tokens(*ordered, "") == Pieces{});
}

TEST_CASE("SPM gives bytes for what is not in the vocabulary") {
  const auto spm = make_tokenizer(tests::small_spm({"▁", "a"}));
  CHECK(tokens(*spm, "aé") == Pieces{"▁", "a", "<0xC3>", "<0xA9>"});
  CHECK(tokens(*spm, "a\xFF") == Pieces{"▁", "a", "<0xFF>"});
  CHECK(tokens(*spm, "a▁a") == Pieces{"▁", "a", "▁", "a"});
  const auto without_space = make_tokenizer(tests::small_spm({"a"}));
  CHECK(tokens(*without_space, "a") == Pieces{"<0xE2>", "<0x96>", "<0x81>", "a"});
}

TEST_CASE("SPM gives the unknown token when the byte tokens are missing") {
  auto vocabulary = tests::small_spm({"▁", "a"});
  for (size_t id = 3; id < 259; ++id) {
    vocabulary.tokens[id] = "[gone " + std::to_string(id) + "]";
    vocabulary.types[id] = TokenType::kNormal;
  }
  CHECK(tokens(*make_tokenizer(vocabulary), "ab") == Pieces{"▁", "a", "<unk>"});
}

TEST_CASE("SPM adds the space after a special token too, and decoding takes it away") {
  const auto spm = make_tokenizer(tests::small_spm({"▁", "a", "b", "▁a"}));
  CHECK(tokens(*spm, "a<s>b a") == Pieces{"▁a", "<s>", "▁", "b", "▁a"});
  const Ids ids = encode(*spm, "a<s>b a");
  CHECK(spm->decode(ids, SpecialTokens::kParse) == "<s>a<s>b a");
  CHECK(spm->decode(ids, SpecialTokens::kAsText) == "ab a");
  auto vocabulary = tests::small_spm({"▁", "a"});
  vocabulary.adds_space_prefix = false;
  const auto gemma = make_tokenizer(vocabulary);
  CHECK(tokens(*gemma, "a a") == Pieces{"a", "▁", "a"});
  CHECK(gemma->decode(gemma->encode(" a", AddSpecial::kNo, SpecialTokens::kParse),
                      SpecialTokens::kParse) == " a");
}

TEST_CASE("BOS is added once, EOS as the vocabulary says") {
  auto vocabulary = tests::small_spm({"▁", "a"});
  CHECK(encode(*make_tokenizer(vocabulary), "a").front() == 1);
  CHECK(encode(*make_tokenizer(vocabulary), "") == Ids{1});
  const Ids once = encode(*make_tokenizer(vocabulary), "<s>a");
  CHECK(once == Ids{1, 259, 260});
  vocabulary.adds_eos = true;
  vocabulary.adds_bos = false;
  CHECK(encode(*make_tokenizer(vocabulary), "a") == Ids{259, 260, 2});
}

TEST_CASE("a special token that strips takes the white space beside it") {
  auto vocabulary = tests::small_bpe({});
  vocabulary.strips_right = {vocabulary.eos};
  CHECK(tokens(*make_tokenizer(vocabulary), "<|end|> \n x<|end|>  ") ==
        Pieces{"<|end|>", "x", "<|end|>"});
  vocabulary.strips_right = {};
  vocabulary.strips_left = {vocabulary.eos};
  CHECK(tokens(*make_tokenizer(vocabulary), "x \n<|end|>y") == Pieces{"x", "<|end|>", "y"});
}

TEST_CASE("special tokens are found by their text and end a generation") {
  auto vocabulary = tests::small_bpe({});
  const int32_t first = vocabulary.size();
  for (const char* text : {"<|im_end|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>",
                           "<|fim_pad|>", "<|eom_id|>", "<｜fim▁hole｜>"}) {
    vocabulary.tokens.emplace_back(text);
    vocabulary.types.push_back(TokenType::kUserDefined);
  }
  vocabulary.eot = -1;
  find_special_tokens(vocabulary, {7});
  const auto bpe = make_tokenizer(vocabulary);
  CHECK(bpe->eot() == first);
  CHECK(bpe->eom() == first + 5);
  CHECK(bpe->fim().prefix == first + 1);
  CHECK(bpe->fim().suffix == first + 2);
  CHECK(bpe->fim().middle == first + 3);
  CHECK(bpe->type(first) == TokenType::kControl);
  CHECK(bpe->eog_tokens() == Ids{7, bpe->eos(), first, first + 4, first + 5});
  CHECK(bpe->is_eog(first));
  CHECK_FALSE(bpe->is_eog(first + 1));
}

TEST_CASE("the harmony format's <|end|> does not end a generation") {
  auto vocabulary = tests::small_bpe({});
  const int32_t end = vocabulary.eos;
  vocabulary.eos = -1;
  for (const char* text : {"<|return|>", "<|call|>"}) {
    vocabulary.tokens.emplace_back(text);
    vocabulary.types.push_back(TokenType::kControl);
  }
  find_special_tokens(vocabulary, {});
  CHECK(vocabulary.eog == Ids{vocabulary.size() - 2, vocabulary.size() - 1});
  CHECK(vocabulary.eot == end);
}

TEST_CASE("pieces of control and unused tokens are empty unless asked for") {
  auto vocabulary = tests::small_bpe({"h i"});
  vocabulary.tokens.emplace_back("[unused]");
  vocabulary.types.push_back(TokenType::kUnused);
  const auto bpe = make_tokenizer(vocabulary);
  CHECK(bpe->piece(256, SpecialTokens::kAsText) == "hi");
  CHECK(bpe->piece(257, SpecialTokens::kAsText).empty());
  CHECK(bpe->piece(257, SpecialTokens::kParse) == "<|end|>");
  CHECK(bpe->piece(258, SpecialTokens::kAsText) == "<tool>");
  CHECK(bpe->piece(259, SpecialTokens::kAsText).empty());
  CHECK(bpe->piece(-1, SpecialTokens::kParse).empty());
  CHECK(bpe->piece(1'000'000, SpecialTokens::kParse).empty());
}

TEST_CASE("random text comes back as it was, whatever the pre-tokenizer") {
  for (const char* pre :
       {"gpt-2", "llama-bpe", "deepseek-v3", "deepseek-llm", "falcon", "tekken"}) {
    const auto bpe = make_tokenizer(tests::small_bpe({"a b", "Ġ t", "Ã ©", "Ġ Ġ", "Ċ Ċ"}, pre));
    tests::RandomText random(11);
    for (int i = 0; i < 500; ++i) {
      const std::string text = random.next(30, i % 2 == 1);
      const Ids ids = bpe->encode(text, AddSpecial::kYes, SpecialTokens::kParse);
      if (bpe->decode(ids, SpecialTokens::kParse) != replace_invalid_utf8(text)) FAIL(text);
    }
  }
  auto vocabulary = tests::small_spm({"▁", "a", "▁a", "th", "e", "▁the", "你"});
  const auto spm = make_tokenizer(vocabulary);
  tests::RandomText random(12);
  for (int i = 0; i < 500; ++i) {
    std::string text = random.next(30, i % 2 == 1);
    if (text.find("▁") != text.npos) continue;  // the same as the space to this vocabulary
    const Ids ids = encode(*spm, text);
    if (spm->decode(ids, SpecialTokens::kAsText) != replace_invalid_utf8(text)) FAIL(text);
  }
}

TEST_CASE("encoding from many threads gives what one thread gives") {
  const auto bpe = make_tokenizer(tests::small_bpe({"a b", "b c", "ab c", "Ġ a", "Ġa b"}));
  const std::string text = "abc ab abcab bcabc aab  abc";
  const Ids expected = encode(*bpe, text);
  const auto fresh = make_tokenizer(tests::small_bpe({"a b", "b c", "ab c", "Ġ a", "Ġa b"}));
  std::vector<int> n_wrong(4);
  {
    std::vector<std::jthread> threads;
    for (int& wrong : n_wrong) {
      threads.emplace_back([&fresh, &text, &expected, &wrong] {
        for (int i = 0; i < 200; ++i)
          wrong += encode(*fresh, text) == expected ? 0 : 1;
      });
    }
  }
  CHECK(n_wrong == std::vector<int>(4));
}

// A quadratic algorithm takes minutes here.
TEST_CASE("a megabyte of one letter, of spaces, of specials takes no long time") {
  constexpr size_t kBytes = 1 << 20;
  std::string specials;
  while (specials.size() < kBytes)
    specials += "<|end|";
  const auto bpe = make_tokenizer(tests::small_bpe({"a a", "aa aa", "Ġ Ġ", "ĠĠ ĠĠ", "a b"}));
  const auto spm = make_tokenizer(tests::small_spm({"aa", "aaaa", "▁▁", "▁▁▁▁", "a", "▁"}));
  for (const auto* tokenizer : {bpe.get(), spm.get()}) {
    for (const std::string& text : {std::string(kBytes, 'a'), std::string(kBytes, ' '),
                                    std::string(kBytes, '\xF0'), specials}) {
      CHECK(seconds_of(*tokenizer, text) < 10);  // measured at most 0.5 s in this build
    }
  }
}

TEST_CASE("a text that is too long is refused") {
  const auto bpe = make_tokenizer(tests::small_bpe({}));
  CHECK_THROWS_WITH(encode(*bpe, std::string((32 << 20) + 1, 'a')),
                    Catch::Contains("33554433 bytes, expected at most 33554432"));
}

}  // namespace dsctl::engine
