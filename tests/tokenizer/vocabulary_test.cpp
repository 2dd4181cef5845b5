// What read_vocabulary accepts, and how it names what it does not.
#include "engine/tokenizer/vocabulary.h"

#include <cmath>

#include "engine/error.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {

namespace {

/// Writes the file that `fill` describes and reads its vocabulary.
template <typename Fill>
Vocabulary read(const Fill& fill) {
  const tests::TempDir dir;
  gguf::GgufWriter writer;
  writer.add("general.architecture", "llama");
  fill(writer);
  writer.write(dir.path() / "model.gguf");
  return read_vocabulary(gguf::GgufFile::open(dir.path() / "model.gguf"));
}

void add_bpe(gguf::GgufWriter& writer) {
  writer.add("tokenizer.ggml.model", "gpt2");
  writer.add("tokenizer.ggml.pre", "gpt-2");
  writer.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a", "b", "ab", "<|end|>"});
}

void add_merges(gguf::GgufWriter& writer) {
  writer.add_strings("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
}

void add_spm(gguf::GgufWriter& writer) {
  writer.add("tokenizer.ggml.model", "llama");
  writer.add_strings("tokenizer.ggml.tokens",
                     std::vector<std::string>{"<unk>", "<s>", "</s>", "a"});
}

#define CHECK_ERROR(fill, text) CHECK_THROWS_WITH(read(fill), Catch::Contains(text))

}  // namespace

TEST_CASE("a vocabulary without optional keys has the defaults of its kind") {
  const Vocabulary bpe = read([](auto& w) {
    add_bpe(w);
    add_merges(w);
  });
  CHECK(bpe.kind == VocabularyKind::kBytePairs);
  CHECK(bpe.bos == -1);
  CHECK(bpe.eos == -1);
  CHECK(bpe.eot == 3);
  CHECK(bpe.eog == std::vector<int32_t>{3});
  CHECK_FALSE(bpe.adds_bos);
  CHECK(bpe.types[0] == TokenType::kNormal);

  const Vocabulary spm = read([](auto& w) {
    add_spm(w);
    w.add_array("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1});
  });
  CHECK(spm.kind == VocabularyKind::kSentencePiece);
  CHECK(spm.bos == 1);
  CHECK(spm.eos == 2);
  CHECK(spm.unknown == 0);
  CHECK(spm.adds_bos);
  CHECK(spm.adds_space_prefix);
}

TEST_CASE("keys override the defaults") {
  const Vocabulary v = read([](auto& w) {
    add_bpe(w);
    add_merges(w);
    w.add("tokenizer.ggml.bos_token_id", uint32_t{0});
    w.add("tokenizer.ggml.eos_token_id", uint32_t{1});
    w.add("tokenizer.ggml.eot_token_id", uint32_t{2});
    w.add("tokenizer.ggml.unknown_token_id", uint32_t{0xFFFFFFFF});
    w.add("tokenizer.ggml.add_bos_token", true);
    w.add("tokenizer.ggml.add_eos_token", true);
    w.add_array("tokenizer.ggml.eos_token_ids", std::vector<int32_t>{0, 1});
  });
  CHECK(v.bos == 0);
  CHECK(v.eos == 1);
  CHECK(v.eot == 2);
  CHECK(v.unknown == -1);
  CHECK(v.adds_bos);
  CHECK(v.adds_eos);
  CHECK(v.eog == std::vector<int32_t>{0, 1, 2, 3});
}

TEST_CASE("pre-tokenizers of the Llama 3 family add BOS when the file does not say") {
  const Vocabulary v = read([](auto& w) {
    w.add("tokenizer.ggml.model", "gpt2");
    w.add("tokenizer.ggml.pre", "llama-bpe");
    w.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a"});
    w.add_strings("tokenizer.ggml.merges", std::vector<std::string>{});
  });
  CHECK(v.adds_bos);
}

TEST_CASE("Phi-3's special tokens take the white space after them") {
  const auto fill = [](auto& w) {
    add_spm(w);
    w.add_array("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -1});
    w.add_array("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 3, 1});
  };
  CHECK(read(fill).strips_right.empty());
  const Vocabulary phi = read([&fill](auto& w) {
    fill(w);
    w.add("general.name", "Phi-3 Mini");
  });
  CHECK(phi.strips_right == std::vector<int32_t>{2});  // </s>, but not <unk> and <s>
}

TEST_CASE("kinds that are not supported are named with those that are") {
  const auto of_kind = [](const char* kind) {
    return [kind](gguf::GgufWriter& w) { w.add("tokenizer.ggml.model", kind); };
  };
  CHECK_ERROR(of_kind("bert"),
              "tokenizer.ggml.model: bert (WordPiece) is not supported; supported are gpt2 "
              "(byte-level BPE) and llama (SentencePiece BPE)");
  CHECK_ERROR(of_kind("t5"), "t5 (Unigram) is not supported");
  CHECK_ERROR(of_kind("rwkv"), "rwkv (greedy trie) is not supported");
  CHECK_ERROR(of_kind("plamo2"), "plamo2 is not supported");
  CHECK_ERROR([](gguf::GgufWriter&) {}, "tokenizer.ggml.model: missing");
}

TEST_CASE("an inconsistent vocabulary is refused with the key's name") {
  const auto bpe_and = [](auto more) {
    return [more](gguf::GgufWriter& w) {
      add_bpe(w);
      more(w);
    };
  };
  CHECK_ERROR(bpe_and([](auto&) {}), "tokenizer.ggml.merges: missing");
  CHECK_ERROR(bpe_and([](auto& w) {
                w.add_strings("tokenizer.ggml.merges", std::vector<std::string>{"a b", "ab"});
              }),
              "tokenizer.ggml.merges[1]: 'ab', expected two symbols and a space");
  CHECK_ERROR(bpe_and([](auto& w) {
                w.add_strings("tokenizer.ggml.merges", std::vector<std::string>{"a "});
              }),
              "tokenizer.ggml.merges[0]");
  CHECK_ERROR(
      bpe_and([](auto& w) { w.add_array("tokenizer.ggml.merges", std::vector<int32_t>{1}); }),
      "tokenizer.ggml.merges: an array of another type, expected strings");
  CHECK_ERROR(bpe_and([](auto& w) {
                add_merges(w);
                w.add_array("tokenizer.ggml.token_type", std::vector<int32_t>{1});
              }),
              "tokenizer.ggml.token_type: 1 elements, expected 4 as in tokenizer.ggml.tokens");
  CHECK_ERROR(bpe_and([](auto& w) {
                add_merges(w);
                w.add_array("tokenizer.ggml.token_type", std::vector<int32_t>{1, 7, 1, 1});
              }),
              "tokenizer.ggml.token_type[1]: 7, expected 0 to 6");
  CHECK_ERROR(bpe_and([](auto& w) {
                add_merges(w);
                w.add("tokenizer.ggml.eos_token_id", uint32_t{4});
              }),
              "tokenizer.ggml.eos_token_id: 4, expected a token id below 4");
  CHECK_ERROR(bpe_and([](auto& w) {
                add_merges(w);
                w.add_array("tokenizer.ggml.eos_token_ids", std::vector<int32_t>{0, 9});
              }),
              "tokenizer.ggml.eos_token_ids[1]: 9, expected a token id below 4");
  CHECK_ERROR(
      [](auto& w) {
        w.add("tokenizer.ggml.model", "gpt2");
        w.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{});
        add_merges(w);
      },
      "tokenizer.ggml.tokens: no tokens");
  CHECK_ERROR(
      [](auto& w) {
        w.add("tokenizer.ggml.model", "gpt2");
        w.add("tokenizer.ggml.pre", "newest");
        w.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{"a"});
        add_merges(w);
      },
      "tokenizer.ggml.pre: 'newest' is not a known pre-tokenizer");
  CHECK_ERROR(add_spm, "tokenizer.ggml.scores: missing");
  CHECK_ERROR(
      [](auto& w) {
        add_spm(w);
        w.add_array("tokenizer.ggml.scores", std::vector<float>{0});
      },
      "tokenizer.ggml.scores: 1 elements, expected 4");
  CHECK_ERROR(
      [](auto& w) {
        add_spm(w);
        w.add_array("tokenizer.ggml.scores", std::vector<float>{0, 0, NAN, 0});
      },
      "tokenizer.ggml.scores[2]: not a number");
  CHECK_ERROR(
      [](auto& w) {
        w.add("tokenizer.ggml.model", "gpt2");
        w.add_strings("tokenizer.ggml.tokens", std::vector<std::string>{std::string(70'000, 'a')});
        add_merges(w);
      },
      "tokenizer.ggml.tokens[0]: 70000 bytes, expected at most 65536");
}

}  // namespace dsctl::engine
