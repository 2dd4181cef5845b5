// The vectors of llama.cpp: 46 texts for each vocabulary, tokenised without special tokens.
#include <fstream>
#include <iterator>
#include <sstream>

#include "gguf/gguf_file.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {

namespace {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> texts_of(const std::string& input) {
  constexpr std::string_view kSeparator = "\n__ggml_vocab_test__\n";
  std::vector<std::string> texts;
  size_t at = 0;
  for (size_t next = input.find(kSeparator); next != input.npos;
       next = input.find(kSeparator, at)) {
    texts.push_back(input.substr(at, next - at));
    at = next + kSeparator.size();
  }
  return texts;
}

std::vector<std::vector<int32_t>> ids_of(const std::string& output) {
  std::vector<std::vector<int32_t>> all;
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    all.emplace_back(std::istream_iterator<int32_t>(numbers), std::istream_iterator<int32_t>());
  }
  return all;
}

/// Compares with the vectors NAME and returns how many there were.
size_t check_vectors(const Tokenizer& tokenizer, const std::string& name) {
  const auto dir = tests::shared_dir() / "data/vocab";
  const auto texts = texts_of(read_text(dir / ("ggml-vocab-" + name + ".gguf.inp")));
  const auto expected = ids_of(read_text(dir / ("ggml-vocab-" + name + ".gguf.out")));
  REQUIRE(texts.size() == expected.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    INFO(name << " vector " << i << ": " << texts[i]);
    CHECK(tokenizer.encode(texts[i], AddSpecial::kNo, SpecialTokens::kAsText) == expected[i]);
  }
  return texts.size();
}

}  // namespace

TEST_CASE("vocabularies in GGUF files give llama.cpp's tokens") {
  if (tests::shared_dir().empty()) {
    WARN("no shared test data: not compared");
    return;
  }
  for (const std::string name : {"gpt-2", "deepseek-llm", "deepseek-coder", "llama-spm", "phi-3"}) {
    const auto path = tests::shared_dir() / "data/vocab" / ("ggml-vocab-" + name + ".gguf");
    const auto tokenizer = Tokenizer::from_gguf(gguf::GgufFile::open(path));
    CHECK(check_vectors(*tokenizer, name) == 46);
  }
}

TEST_CASE("vocabularies of published tokenizers give llama.cpp's tokens") {
  if (tests::shared_dir().empty()) {
    WARN("no shared test data: not compared");
    return;
  }
  CHECK(check_vectors(*tests::llama3_2_tokenizer(), "llama-bpe") == 46);
  CHECK(check_vectors(*tests::real_tokenizer("llama3_1"), "llama-bpe") == 46);
  const auto qwen = tests::real_tokenizer("qwen3");
  CHECK(check_vectors(*qwen, "qwen2") == 46);
  CHECK(check_vectors(*qwen, "deepseek-r1-qwen") == 46);
  CHECK(check_vectors(*tests::real_tokenizer("deepseek_v3"), "deepseek-v3") == 46);
}

}  // namespace dsctl::engine
