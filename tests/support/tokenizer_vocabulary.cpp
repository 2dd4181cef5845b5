#include "tests/support/tokenizer_vocabulary.h"

#include <cstdlib>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "engine/tokenizer/unicode.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "tests/support/paths.h"

namespace dsctl::tests {

namespace {

using engine::TokenType;
using engine::Vocabulary;
using engine::VocabularyKind;

constexpr const char* kSpaceMark = "▁";

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = text.find(from); at != text.npos; at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

/// GPT-2's alphabet, written a second time on purpose: tests need not trust the code.
std::string bpe_character(int byte) {
  std::string out;
  if ((byte > 32 && byte < 127) || (byte > 160 && byte != 173)) {
    engine::append_utf8(static_cast<uint32_t>(byte), out);
  } else {
    const int nth = byte <= 32 ? byte : byte == 173 ? 67 : byte - 127 + 33;
    engine::append_utf8(static_cast<uint32_t>(256 + nth), out);
  }
  return out;
}

void add_token(Vocabulary& v, std::string text, TokenType type) {
  v.tokens.push_back(std::move(text));
  v.types.push_back(type);
}

nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

/// Scores that make SentencePiece's order the order of the merges.
std::vector<float> scores_of_merges(const nlohmann::json& merges,
                                    const std::map<std::string, int32_t>& ids, size_t n_tokens) {
  std::vector<float> scores(n_tokens, -1e6F);
  float rank = 0;
  for (const auto& merge : merges) {
    const auto it = ids.find(merge.at(0).get<std::string>() + merge.at(1).get<std::string>());
    float& score = scores.at(static_cast<size_t>(it->second));
    if (score == -1e6F) score = -rank;
    ++rank;
  }
  return scores;
}

void set_token(Vocabulary& v, size_t id, std::string text, TokenType type) {
  if (id >= v.tokens.size()) {
    v.tokens.resize(id + 1);
    v.types.resize(id + 1, TokenType::kUnused);
  }
  v.tokens[id] = std::move(text);
  v.types[id] = type;
}

TokenType added_type(const nlohmann::json& token) {
  return token.at("special").get<bool>() ? TokenType::kControl : TokenType::kUserDefined;
}

std::filesystem::path extracted(const std::string& name, const TempDir& dir) {
  const auto archive = shared_dir() / "data/tokenizers" / (name + ".tar.xz");
  const std::string command =
      "tar -xJf '" + archive.string() + "' -C '" + dir.path().string() + "'";
  if (std::system(command.c_str()) != 0) throw std::runtime_error("cannot extract " + name);
  return dir.path() / "tokenizer.json";
}

}  // namespace

Vocabulary small_bpe(const std::vector<std::string>& merges, std::string_view pre) {
  Vocabulary v;
  v.pre = pre;
  for (int byte = 0; byte < 256; ++byte)
    add_token(v, bpe_character(byte), TokenType::kNormal);
  for (const std::string& merge : merges) {
    v.merges.push_back(merge);
    std::string merged = merge;
    merged.erase(merged.find(' ', 1), 1);
    add_token(v, merged, TokenType::kNormal);
  }
  v.eos = v.size();
  add_token(v, "<|end|>", TokenType::kControl);
  add_token(v, "<tool>", TokenType::kUserDefined);
  engine::find_special_tokens(v, {});
  return v;
}

Vocabulary small_spm(const std::vector<std::string>& tokens) {
  Vocabulary v;
  v.kind = VocabularyKind::kSentencePiece;
  add_token(v, "<unk>", TokenType::kUnknown);
  add_token(v, "<s>", TokenType::kControl);
  add_token(v, "</s>", TokenType::kControl);
  for (int byte = 0; byte < 256; ++byte) {
    char text[8];
    std::snprintf(text, sizeof(text), "<0x%02X>", byte);
    add_token(v, text, TokenType::kByte);
  }
  v.scores.assign(v.tokens.size(), 0);
  for (const std::string& token : tokens) {
    v.scores.push_back(-static_cast<float>(v.tokens.size() - 259));
    add_token(v, token, TokenType::kNormal);
  }
  v.unknown = 0;
  v.bos = 1;
  v.eos = 2;
  v.adds_bos = true;
  v.adds_space_prefix = true;
  engine::find_special_tokens(v, {});
  return v;
}

void write_gguf(const Vocabulary& v, const std::filesystem::path& path) {
  gguf::GgufWriter writer;
  const bool is_spm = v.kind == VocabularyKind::kSentencePiece;
  writer.add("general.architecture", "llama");
  writer.add("tokenizer.ggml.model", is_spm ? "llama" : "gpt2");
  if (!v.pre.empty()) writer.add("tokenizer.ggml.pre", v.pre);
  writer.add_strings("tokenizer.ggml.tokens", v.tokens);
  if (is_spm) writer.add_array("tokenizer.ggml.scores", v.scores);
  std::vector<int32_t> types;
  for (const TokenType type : v.types)
    types.push_back(static_cast<int32_t>(type));
  writer.add_array("tokenizer.ggml.token_type", types);
  if (!is_spm) writer.add_strings("tokenizer.ggml.merges", v.merges);
  if (v.bos >= 0) writer.add("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(v.bos));
  if (v.eos >= 0) writer.add("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(v.eos));
  if (v.unknown >= 0) {
    writer.add("tokenizer.ggml.unknown_token_id", static_cast<uint32_t>(v.unknown));
  }
  writer.add("tokenizer.ggml.add_bos_token", v.adds_bos);
  writer.add("tokenizer.ggml.add_space_prefix", v.adds_space_prefix);
  writer.write(path);
}

Vocabulary vocabulary_of_json(const std::filesystem::path& path, std::string_view pre) {
  const nlohmann::json json = read_json(path);
  const auto& model = json.at("model");
  Vocabulary v;
  const bool is_spm = model.value("byte_fallback", false);
  v.kind = is_spm ? VocabularyKind::kSentencePiece : VocabularyKind::kBytePairs;
  v.pre = pre;
  const auto ids = model.at("vocab").get<std::map<std::string, int32_t>>();
  for (const auto& [text, id] : ids) {
    const bool is_byte = is_spm && text.size() == 6 && text.starts_with("<0x");
    set_token(v, static_cast<size_t>(id), text, is_byte ? TokenType::kByte : TokenType::kNormal);
  }
  for (const auto& token : json.at("added_tokens")) {
    std::string text = token.at("content");
    if (is_spm) text = replace_all(text, kSpaceMark, " ");
    set_token(v, token.at("id"), text, added_type(token));
  }
  if (is_spm) {
    v.scores = scores_of_merges(model.at("merges"), ids, v.tokens.size());
    return v;
  }
  for (const auto& merge : model.at("merges")) {
    v.merges.push_back(merge.is_string()
                           ? merge.get<std::string>()
                           : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>());
  }
  return v;
}

std::unique_ptr<engine::Tokenizer> real_tokenizer(const std::string& name) {
  if (shared_dir().empty()) return nullptr;
  const std::map<std::string, std::string> pre = {{"qwen3", "qwen2"},
                                                  {"deepseek_v3", "deepseek-v3"},
                                                  {"llama3_1", "llama-bpe"},
                                                  {"gemma3", ""}};
  const TempDir dir;
  Vocabulary v = vocabulary_of_json(extracted(name, dir), pre.at(name));
  write_gguf(v, dir.path() / "vocabulary.gguf");
  return engine::Tokenizer::from_gguf(gguf::GgufFile::open(dir.path() / "vocabulary.gguf"));
}

std::unique_ptr<engine::Tokenizer> llama3_2_tokenizer() {
  if (shared_dir().empty()) return nullptr;
  const auto dir = shared_dir() / "data/vocab/llama3.2";
  Vocabulary v;
  v.pre = "llama-bpe";
  const nlohmann::json ids = read_json(dir / "encoder.json");
  for (const auto& [text, id] : ids.items()) {
    set_token(v, id, text, TokenType::kNormal);
  }
  std::ifstream merges(dir / "vocab.bpe");
  for (std::string line; std::getline(merges, line);) {
    if (!line.empty() && !line.starts_with("#version")) v.merges.push_back(line);
  }
  v.adds_bos = true;
  const TempDir temp;
  write_gguf(v, temp.path() / "vocabulary.gguf");
  return engine::Tokenizer::from_gguf(gguf::GgufFile::open(temp.path() / "vocabulary.gguf"));
}

}  // namespace dsctl::tests
