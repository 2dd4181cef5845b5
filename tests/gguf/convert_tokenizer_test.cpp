#include <nlohmann/json.hpp>

#include "gguf/convert/metadata_list.h"
#include "gguf/convert/model_card.h"
#include "gguf/convert/pre_tokenizer.h"
#include "gguf/convert/provenance.h"
#include "gguf/convert/special_tokens.h"
#include "gguf/convert/tokenizer_tables.h"
#include "gguf/error.h"
#include "tests/support/catch.h"
#include "tests/support/gguf_safetensors.h"
#include "tests/support/paths.h"

namespace dsctl::gguf::convert {
namespace {

using Catch::Matchers::Contains;

std::string proto_field(int number, std::string_view bytes) {
  return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} +
         std::string(bytes);
}

std::string proto_piece(std::string_view text, std::string_view score, int type) {
  return proto_field(
      1, proto_field(1, text) + "\x15" + std::string(score) + "\x18" + static_cast<char>(type));
}

const std::string kOne("\x00\x00\x80\x3f", 4);  // 1.0

TEST_CASE("parse_sentencepiece reads pieces and skips the rest") {
  const std::string bytes = proto_piece("<unk>", kOne, 2) + proto_field(2, "trainer") +
                            proto_piece("ab", kOne, 1) + proto_piece("<0x0A>", kOne, 6) +
                            proto_piece("given", kOne, 4);
  const auto pieces = parse_sentencepiece(bytes, "x");
  REQUIRE(pieces.size() == 4);
  CHECK(pieces[0].kind == TokenKind::kUnknown);
  CHECK(pieces[1].text == "ab");
  CHECK(pieces[1].score == 1.0F);
  CHECK(pieces[2].kind == TokenKind::kByte);
  CHECK(pieces[3].kind == TokenKind::kNormal);  // matched like any other
}

TEST_CASE("parse_sentencepiece refuses broken models") {
  const std::string good = proto_piece("ab", kOne, 1);
  for (size_t n = 1; n < good.size(); ++n)
    CHECK_THROWS_AS(parse_sentencepiece(good.substr(0, n), "x"), Error);
  CHECK_THROWS_WITH(parse_sentencepiece("", "x"), Contains("no pieces"));
  CHECK_THROWS_WITH(parse_sentencepiece(proto_piece("a", kOne, 9), "x"), Contains("type 9"));
  CHECK_THROWS_WITH(parse_sentencepiece(proto_piece("", kOne, 1), "x"), Contains("0 bytes"));
  CHECK_THROWS_WITH(parse_sentencepiece("\x0b", "x"), Contains("wire type 3"));
  CHECK_THROWS_WITH(parse_sentencepiece(std::string(11, '\xff'), "x"), Contains("64 bits"));
  CHECK_THROWS_WITH(parse_sentencepiece("\x0a\xff\xff\xff\xff\x7f", "x"), Contains("cut short"));
}

TokenizerTables parse(const nlohmann::json& json, int64_t vocab_size = 8,
                      const std::string& pre = "") {
  TokenizerRequest request{.dir = {}, .vocab_size = vocab_size, .pre_tokenizer = pre, .notes = {}};
  return parse_tokenizer_json(json.dump(), request);
}

nlohmann::json byte_level_json() {
  return {{"model",
           {{"type", "BPE"},
            {"vocab", {{"a", 0}, {"b", 1}, {"ab", 2}}},
            {"merges", nlohmann::json::array({nlohmann::json::array({"a", "b"}),
                                              nlohmann::json::array({"a ", "b"})})}}},
          {"pre_tokenizer", {{"type", "ByteLevel"}}},
          {"added_tokens",
           {{{"id", 4}, {"content", "<s>"}, {"special", true}},
            {{"id", 5}, {"content", "x\u2581y"}, {"special", false}},
            {{"id", 6}, {"content", "<|odd|>"}, {"special", false}}}}};
}

TEST_CASE("tokenizer.json of byte-level BPE becomes a gpt2 vocabulary") {
  const TokenizerTables tables = parse(byte_level_json());
  CHECK(tables.model == "gpt2");
  CHECK(tables.pre == "gpt-2");
  CHECK(tables.tokens ==
        std::vector<std::string>{"a", "b", "ab", "[PAD3]", "<s>", "x y", "<|odd|>", "[PAD7]"});
  CHECK(tables.types == std::vector<int32_t>{1, 1, 1, 5, 3, 4, 3, 5});
  CHECK(tables.merges == std::vector<std::string>{"a b", "a\u0120 b"});
  CHECK(tables.scores.empty());
}

TEST_CASE("tokenizer.json with byte fallback gets scores that merge in the same order") {
  const TokenizerTables tables =
      parse({{"model",
              {{"type", "BPE"},
               {"byte_fallback", true},
               {"unk_token", "<unk>"},
               {"vocab", {{"<unk>", 0}, {"<0x41>", 1}, {"a", 2}, {"b", 3}, {"ab", 4}, {"aba", 5}}},
               {"merges", {"a b", "ab a"}}}},
             {"added_tokens", {{{"id", 0}, {"content", "<unk>"}, {"special", true}}}}},
            6);
  CHECK(tables.model == "llama");
  CHECK(tables.types == std::vector<int32_t>{2, 6, 1, 1, 1, 1});
  CHECK(tables.merges.empty());
  CHECK(tables.scores[4] > tables.scores[5]);
  CHECK(tables.scores[5] > tables.scores[2]);
}

TEST_CASE("tokenizer.json that can't be a vocabulary is refused by field") {
  auto json = byte_level_json();
  CHECK_THROWS_WITH(parse(json, 6), Contains("\"<|odd|>\" has id 6") && Contains("6 tokens"));
  json["model"]["type"] = "WordPiece";
  CHECK_THROWS_WITH(parse(json), Contains("WordPiece"));
  json = byte_level_json();
  json["model"]["vocab"]["a"] = -1;
  CHECK_THROWS_WITH(parse(json), Contains("no token id"));
  json = byte_level_json();
  json["model"]["merges"] = {1};
  CHECK_THROWS_WITH(parse(json), Contains("model.merges"));
  json = byte_level_json();
  json["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"Regex", "[xyz]"}}}};
  CHECK_THROWS_WITH(parse(json), Contains("[xyz]"));
  CHECK(parse(json, 8, "qwen2").pre == "qwen2");
  CHECK_THROWS_WITH(parse(nlohmann::json::array()), Contains("model"));
  TokenizerRequest request{.dir = {}, .vocab_size = 8, .pre_tokenizer = "", .notes = {}};
  CHECK_THROWS_WITH(parse_tokenizer_json("{", request), Contains("no valid JSON"));
}

TEST_CASE("the pre-tokenizers of published vocabularies are recognised") {
  const auto split = [](const std::string& regex) {
    return nlohmann::json{{"type", "Split"}, {"pattern", {{"Regex", regex}}}};
  };
  const auto name = [](const nlohmann::json& json) {
    return recognize_pre_tokenizer(pre_tokenizer_steps(json)).value_or("");
  };
  const nlohmann::json byte_level = {{"type", "ByteLevel"}, {"use_regex", false}};
  const std::string tail = R"(| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  const std::string head = R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|)";
  CHECK(name({{"type", "Sequence"},
              {"pretokenizers", {split(head + R"(\p{N}{1,3})" + tail), byte_level}}}) ==
        "llama-bpe");
  CHECK(name(split(head + R"(\p{N})" + tail)) == "qwen2");
  CHECK(name({{"type", "ByteLevel"}}) == "gpt-2");
  CHECK(name({{"type", "Sequence"},
              {"pretokenizers",
               {{{"type", "Digits"}, {"individual_digits", true}}, {{"type", "ByteLevel"}}}}}) ==
        "smollm");
  // Written with real line ends.
  CHECK(name({{"type", "Sequence"},
              {"pretokenizers",
               {split("[\r\n]"), split("\\s?\\p{L}+"), split("\\s?\\p{P}+"), split("x")}}}) ==
        "deepseek-coder");
  CHECK(name(split("x")).empty());
  CHECK(name({{"type", "Metaspace"}}).empty());
}

struct SpecialTokenCase {
  std::string tokenizer_json;
  std::string tokenizer_config;
  std::string config;
};

MetadataList special_tokens(const SpecialTokenCase& files) {
  const tests::TempDir dir;
  tests::write_file(dir.path() / "tokenizer.json", files.tokenizer_json);
  tests::write_file(dir.path() / "tokenizer_config.json", files.tokenizer_config);
  tests::write_file(dir.path() / "config.json", files.config);
  MetadataList metadata;
  add_special_tokens({.dir = dir.path(), .vocab_size = 0, .merges = {}}, metadata);
  return metadata;
}

const std::string kAdded =
    R"("added_tokens": [{"id": 1, "content": "<s>"}, {"id": 2, "content": "</s>"}])";

TEST_CASE("special tokens come from tokenizer_config.json, then from config.json") {
  const MetadataList metadata = special_tokens(
      {"{" + kAdded + "}",
       R"({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true,
           "chat_template": "text"})",
       R"({"bos_token_id": 7, "pad_token_id": 9, "eos_token_id": [3, 4]})"});
  const auto id = [&](const char* key) { return std::get<uint32_t>(*metadata.find(key)); };
  CHECK(id("tokenizer.ggml.bos_token_id") == 1);
  CHECK(id("tokenizer.ggml.eos_token_id") == 2);
  CHECK(id("tokenizer.ggml.padding_token_id") == 9);
  CHECK(std::get<bool>(*metadata.find("tokenizer.ggml.add_bos_token")));
  CHECK(std::get<std::string>(*metadata.find("tokenizer.chat_template")) == "text");
}

TEST_CASE("what the post-processor does is stronger than what the config says") {
  const MetadataList metadata = special_tokens(
      {"{" + kAdded + R"(, "post_processor": {"type": "TemplateProcessing",
         "single": [{"SpecialToken": {"id": "<s>"}}, {"Sequence": {"id": "A"}},
                    {"SpecialToken": {"id": "</s>"}}]}})",
       R"({"bos_token": "<s>", "eos_token": "other", "add_bos_token": false})", "{}"});
  CHECK(std::get<bool>(*metadata.find("tokenizer.ggml.add_bos_token")));
  CHECK(std::get<bool>(*metadata.find("tokenizer.ggml.add_eos_token")));
  CHECK(std::get<uint32_t>(*metadata.find("tokenizer.ggml.eos_token_id")) == 2);
}

TEST_CASE("chat_template.jinja and its relatives become templates by name") {
  const tests::TempDir dir;
  tests::write_file(dir.path() / "tokenizer_config.json", R"({"add_eos_token": false})");
  tests::write_file(dir.path() / "chat_template.jinja", "main");
  std::filesystem::create_directory(dir.path() / "additional_chat_templates");
  tests::write_file(dir.path() / "additional_chat_templates" / "tool-use.jinja", "tools");
  MetadataList metadata;
  add_special_tokens({.dir = dir.path(), .vocab_size = 0, .merges = {}}, metadata);
  CHECK(std::get<std::string>(*metadata.find("tokenizer.chat_template")) == "main");
  CHECK(std::get<std::string>(*metadata.find("tokenizer.chat_template.tool_use")) == "tools");
}

TEST_CASE("split_model_id takes a model's name apart") {
  const ModelIdParts qwen = split_model_id("Qwen/Qwen3-0.6B-Base", 600'000'000);
  CHECK(qwen.organization == "Qwen");
  CHECK(qwen.basename == "Qwen3");
  CHECK(qwen.size_label == "0.6B");
  CHECK(qwen.finetune == "Base");
  const ModelIdParts llama = split_model_id("Llama-3.1-8B-Instruct", 8'000'000'000);
  CHECK(llama.basename == "Llama-3.1");
  CHECK(llama.size_label == "8B");
  CHECK(llama.finetune == "Instruct");
  CHECK(split_model_id("Mistral-7B-Instruct-v0.3", 7'000'000'000).version == "v0.3");
  // Far from the number of parameters: a context length.
  CHECK(split_model_id("Yi-9B-200K", 9'000'000'000).finetune == "200k");
  CHECK(split_model_id("my model", 1).name == "my model");
  CHECK(split_model_id("", 1).basename.empty());
}

TEST_CASE("size_label writes two digits") {
  CHECK(size_label({.total = 999}) == "1.0K");
  CHECK(size_label({.total = 135'000'000}) == "135M");
  CHECK(size_label({.total = 1'100'000'000}) == "1.1B");
  CHECK(size_label({.total = 671'000'000'000,
                    .shared = 15'000'000'000,
                    .experts = 3'000'000'000,
                    .n_experts = 256}) == "256x18B");
}

TEST_CASE("parse_model_card reads the front matter of a card") {
  const ModelCard card = parse_model_card(
      "---\nlicense: apache-2.0  # free\ntags:\n- chat\n  - \"two\"\npipeline_tag: "
      "text-generation\n"
      "language: [en, 'no']\nbase_model:\n- Qwen/Qwen3-0.6B\nmodel-index:\n- name: x\n---\n# "
      "Title\n");
  CHECK(card.license == "apache-2.0");
  CHECK(card.tags == std::vector<std::string>{"chat", "two", "text-generation"});
  CHECK(card.languages == std::vector<std::string>{"en", "no"});
  CHECK(card.base_models == std::vector<std::string>{"Qwen/Qwen3-0.6B"});
  CHECK(parse_model_card("# no front matter\nlicense: mit\n").license.empty());
  CHECK(parse_model_card("---\nlicense: mit\n").license.empty());  // no end
}

}  // namespace
}  // namespace dsctl::gguf::convert
