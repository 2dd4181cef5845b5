// Tokens of HF tokenizers for 1,000 random texts and four published vocabularies, recorded by
// tests/golden/tokenizer/compare_hf.py (which compares 10,000 more when it is run).
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/paths.h"
#include "tests/support/tokenizer_vocabulary.h"

namespace dsctl::engine {

namespace {

/// FNV-1a over the ids as little-endian 32-bit numbers, as the script has it.
std::string digest(const std::vector<int32_t>& ids) {
  uint64_t hash = 0xCBF29CE484222325;
  for (const int32_t id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3;
    }
  }
  char text[17];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

std::vector<std::string> read_lines(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);)
    lines.push_back(line);
  return lines;
}

}  // namespace

TEST_CASE("published vocabularies give the tokens of HF tokenizers") {
  const auto golden = tests::source_dir() / "tests/golden/tokenizer";
  std::ifstream file(golden / "hf_texts.json");
  const std::vector<std::string> texts = nlohmann::json::parse(file);
  REQUIRE(texts.size() == 1000);
  for (const std::string name : {"qwen3", "deepseek_v3", "llama3_1", "gemma3"}) {
    const auto tokenizer = tests::real_tokenizer(name);
    if (!tokenizer) {
      WARN("no shared test data: not compared");
      return;
    }
    const auto expected = read_lines(golden / ("hf_ids_" + name + ".txt"));
    REQUIRE(expected.size() == texts.size());
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto ids = tokenizer->encode(texts[i], AddSpecial::kNo, SpecialTokens::kParse);
      INFO(name << ", text " << i << ": " << texts[i]);
      CHECK(digest(ids) == expected[i]);
    }
  }
}

}  // namespace dsctl::engine
