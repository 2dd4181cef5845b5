#include "engine/tokenizer/stream_decoder.h"

#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/vocabulary.h"
#include "tests/support/catch.h"
#include "tests/support/tokenizer_text.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {

namespace {

using Parts = std::vector<std::string>;

std::unique_ptr<Tokenizer> bytes_tokenizer() {
  return make_tokenizer(tests::small_bpe({"a b"}));
}

/// What comes out for each byte of `text`, and at the end.
Parts stream(StreamDecoder& decoder, const Tokenizer& tokenizer, std::string_view text) {
  Parts parts;
  for (const char c : text) {
    for (const int32_t id : tokenizer.encode({&c, 1}, AddSpecial::kNo, SpecialTokens::kAsText)) {
      parts.push_back(decoder.push(id));
    }
  }
  parts.push_back(decoder.finish());
  return parts;
}

}  // namespace

TEST_CASE("a code point comes out when its last byte is there") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder decoder(*tokenizer, {});
  CHECK(stream(decoder, *tokenizer, "xé👍") == Parts{"x", "", "é", "", "", "", "👍", ""});
}

TEST_CASE("incomplete and invalid bytes become U+FFFD") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder at_end(*tokenizer, {});
  CHECK(stream(at_end, *tokenizer, "a\xF0\x9F\x91") == Parts{"a", "", "", "", "\uFFFD"});
  StreamDecoder inside(*tokenizer, {});
  CHECK(stream(inside, *tokenizer, "\xE4\xBDz") == Parts{"", "", "\uFFFDz", ""});
}

TEST_CASE("a stream joins to what decoding at once gives, and every part is valid UTF-8") {
  const auto tokenizer = bytes_tokenizer();
  tests::RandomText random(21);
  for (int i = 0; i < 1000; ++i) {
    const std::string text = random.next(15, true);
    StreamDecoder decoder(*tokenizer, {"never there", "\n\n\n\n\n"});
    std::string joined;
    for (const std::string& part : stream(decoder, *tokenizer, text)) {
      if (part != replace_invalid_utf8(part)) FAIL("not valid: " << part);
      joined += part;
    }
    if (!decoder.stopped() && joined != replace_invalid_utf8(text)) FAIL(text);
  }
}

TEST_CASE("a stop string ends the stream and is not shown") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder decoder(*tokenizer, {"STOP"});
  CHECK(stream(decoder, *tokenizer, "a STOP b") == Parts{"a", " ", "", "", "", "", "", "", ""});
  CHECK(decoder.stopped());
}

TEST_CASE("text that begins a stop string is held back and comes when it does not go on") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder decoder(*tokenizer, {"aab", ""});
  CHECK(stream(decoder, *tokenizer, "aaac") == Parts{"", "", "a", "aac", ""});
  CHECK_FALSE(decoder.stopped());
  StreamDecoder at_end(*tokenizer, {"aab"});
  CHECK(stream(at_end, *tokenizer, "xaa") == Parts{"x", "", "", "aa"});
  StreamDecoder inside_code_point(*tokenizer, {"é!"});
  CHECK(stream(inside_code_point, *tokenizer, "é?") == Parts{"", "", "é?", ""});
}

TEST_CASE("the first of several stop strings counts") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder decoder(*tokenizer, {"cd", "bcde"});
  CHECK(stream(decoder, *tokenizer, "abcde") == Parts{"a", "", "", "b", "", ""});
  CHECK(decoder.stopped());
}

TEST_CASE("a stop string may lie in the middle of a token") {
  const auto tokenizer = bytes_tokenizer();
  const int32_t ab = tokenizer->find("ab");
  StreamDecoder decoder(*tokenizer, {"b"});
  CHECK(decoder.push(ab) == "a");
  CHECK(decoder.stopped());
  CHECK(decoder.push(ab).empty());
  CHECK(decoder.finish().empty());
}

TEST_CASE("a stop string that a flushed tail completes still stops") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder decoder(*tokenizer, {"\uFFFD"});
  CHECK(stream(decoder, *tokenizer, "a\xE4") == Parts{"a", "", ""});
  CHECK(decoder.stopped());
}

TEST_CASE("control tokens are silent unless they are asked for") {
  const auto tokenizer = bytes_tokenizer();
  StreamDecoder silent(*tokenizer, {});
  CHECK(silent.push(tokenizer->eos()).empty());
  StreamDecoder shown(*tokenizer, {}, SpecialTokens::kParse);
  CHECK(shown.push(tokenizer->eos()) == "<|end|>");
}

TEST_CASE("the space that SPM adds is taken away where the vocabulary adds it") {
  const auto spm = make_tokenizer(tests::small_spm({"▁", "a", "▁a"}));
  const int32_t word = spm->find("▁a");
  StreamDecoder at_beginning(*spm, {});
  CHECK(at_beginning.push(word) == "a");
  CHECK(at_beginning.push(word) == " a");
  CHECK(at_beginning.push(spm->bos()).empty());
  CHECK(at_beginning.push(word) == "a");
  StreamDecoder after_text(*spm, {}, SpecialTokens::kAsText, word);
  CHECK(after_text.push(word) == " a");
  StreamDecoder after_control(*spm, {}, SpecialTokens::kAsText, spm->eos());
  CHECK(after_control.push(word) == "a");
}

}  // namespace dsctl::engine
