// Random text against small vocabularies, and random vocabularies: encoding must keep every byte
// that the vocabulary has, decoding must give valid UTF-8, and nothing may crash.
#include <cstdlib>
#include <memory>
#include <string>

#include "engine/error.h"
#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/stream_decoder.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/vocabulary.h"

namespace {

using namespace dsctl::engine;  // NOLINT: a fuzz target is one file

void check(bool ok) {
  if (!ok) std::abort();
}

void add(Vocabulary& v, std::string text, TokenType type) {
  v.tokens.push_back(std::move(text));
  v.types.push_back(type);
}

/// All bytes, some merges, two special tokens.
Vocabulary bpe_vocabulary(std::string_view pre) {
  Vocabulary v;
  v.pre = pre;
  uint32_t next = 256;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool is_itself = (byte > 32 && byte < 127) || (byte > 160 && byte != 173);
    std::string text;
    append_utf8(is_itself ? byte : next++, text);
    add(v, text, TokenType::kNormal);
  }
  v.merges = {"a b", "Ġ a", "Ċ Ċ", "Ġ Ġ", "ĠĠ ĠĠ", "Ã ©", "1 2", "ab ab"};
  for (std::string merge : v.merges)
    add(v, merge.erase(merge.find(' ', 1), 1), TokenType::kNormal);
  add(v, "<|end|>", TokenType::kControl);
  add(v, "<tool>", TokenType::kUserDefined);
  v.adds_bos = true;
  v.bos = v.size() - 2;
  find_special_tokens(v, {});
  return v;
}

Vocabulary spm_vocabulary() {
  Vocabulary v;
  v.kind = VocabularyKind::kSentencePiece;
  add(v, "<unk>", TokenType::kUnknown);
  add(v, "<s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    add(v, text, TokenType::kByte);
  }
  for (const char* text : {"▁", "a", "ab", "▁a", "▁▁", "é", "你好", "\n\n"}) {
    add(v, text, TokenType::kNormal);
  }
  for (int i = 0; i < v.size(); ++i)
    v.scores.push_back(static_cast<float>(-(i % 7)));
  v.unknown = 0;
  v.bos = 1;
  v.adds_bos = v.adds_space_prefix = true;
  find_special_tokens(v, {});
  return v;
}

/// Encodes and decodes in every way; `is_lossless`: the bytes must come back.
void exercise(const Tokenizer& tokenizer, const std::string& text, bool is_lossless) {
  for (const SpecialTokens special : {SpecialTokens::kParse, SpecialTokens::kAsText}) {
    const auto ids = tokenizer.encode(text, AddSpecial::kNo, special);
    std::string streamed;
    StreamDecoder decoder(tokenizer, {"zq"}, SpecialTokens::kParse);
    for (const int32_t id : ids) {
      check(id >= 0 && id < tokenizer.vocab_size());
      const std::string part = decoder.push(id);
      check(part == replace_invalid_utf8(part));
      streamed += part;
    }
    streamed += decoder.finish();
    const std::string decoded = tokenizer.decode(ids, SpecialTokens::kParse);
    check(decoded == replace_invalid_utf8(decoded));
    if (!decoder.stopped()) check(streamed == decoded);
    if (is_lossless) check(decoded == replace_invalid_utf8(text));
    tokenizer.encode(text, AddSpecial::kYes, special);
  }
}

/// A vocabulary out of the input's lines: tokens, and for every third a merge.
Vocabulary random_vocabulary(const std::string& text, unsigned choice) {
  Vocabulary v;
  v.kind = choice % 2 == 0 ? VocabularyKind::kBytePairs : VocabularyKind::kSentencePiece;
  v.pre = choice % 4 < 2 ? "gpt-2" : "llama-bpe";
  v.adds_space_prefix = v.kind == VocabularyKind::kSentencePiece && choice % 8 < 4;
  for (size_t at = 0; at < text.size() && v.size() < 300;) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const std::string line = text.substr(at, end - at);
    if (v.size() % 3 == 2) v.merges.push_back(line);
    const auto type = static_cast<unsigned char>(line.empty() ? 1 : line[0]) % 7;
    add(v, line, static_cast<TokenType>(type));
    v.scores.push_back(static_cast<float>(line.size() % 5));
    at = end + 1;
  }
  find_special_tokens(v, {});
  return v;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  static const auto spm = make_tokenizer(spm_vocabulary());
  static const std::vector<std::unique_ptr<Tokenizer>> bpes = [] {
    std::vector<std::unique_ptr<Tokenizer>> all;
    for (const PreTokenizerSpec& spec : all_pre_tokenizers()) {
      all.push_back(make_tokenizer(bpe_vocabulary(spec.name)));
    }
    return all;
  }();
  const unsigned choice = data[0];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (choice < 200) {
    exercise(*bpes[choice % bpes.size()], text, true);
  } else if (choice < 220) {
    exercise(*spm, text, text.find("▁") == text.npos && text.find("<s>") == text.npos);
  } else {
    try {
      exercise(*make_tokenizer(random_vocabulary(text, choice)), text, false);
    } catch (const Error&) {
      // An inconsistent vocabulary is refused.
    }
  }
  return 0;
}
