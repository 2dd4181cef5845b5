#include "engine/tokenizer/vocabulary.h"

#include <algorithm>
#include <cctype>
#include <cmath>

#include "engine/error.h"
#include "engine/tokenizer/pretokenize.h"

namespace dsctl::engine {

namespace {

// Far above what is published (the largest has 262,144 tokens), far below what would hurt.
constexpr size_t kMaxTokens = 1 << 22;
constexpr size_t kMaxMerges = 1 << 23;
constexpr size_t kMaxTokenBytes = 1 << 16;

constexpr const char* kModelKey = "tokenizer.ggml.model";
constexpr const char* kPreKey = "tokenizer.ggml.pre";
constexpr const char* kTokensKey = "tokenizer.ggml.tokens";
constexpr const char* kScoresKey = "tokenizer.ggml.scores";
constexpr const char* kTypesKey = "tokenizer.ggml.token_type";
constexpr const char* kMergesKey = "tokenizer.ggml.merges";
constexpr const char* kSupported =
    "supported are gpt2 (byte-level BPE) and llama (SentencePiece BPE)";

std::string at(const char* key, size_t index) {
  return std::string(key) + "[" + std::to_string(index) + "]";
}

VocabularyKind kind_of(const gguf::GgufFile& file) {
  const auto model = file.find_string(kModelKey);
  if (!model) {
    throw Error(std::string(kModelKey) + ": missing; the file has no tokenizer, " + kSupported);
  }
  if (*model == "gpt2") return VocabularyKind::kBytePairs;
  if (*model == "llama") return VocabularyKind::kSentencePiece;
  std::string name(*model);
  if (*model == "bert") name += " (WordPiece)";
  if (*model == "t5") name += " (Unigram)";
  if (*model == "rwkv") name += " (greedy trie)";
  if (*model == "no_vocab" || *model == "none") name += " (no vocabulary)";
  throw Error(std::string(kModelKey) + ": " + name + " is not supported; " + kSupported);
}

const gguf::ArrayValue& required_array(const gguf::GgufFile& file, const char* key) {
  const gguf::ArrayValue* array = file.find_array(key);
  if (!array) throw Error(std::string(key) + ": missing");
  return *array;
}

std::vector<std::string> read_strings(const gguf::GgufFile& file, const char* key, size_t n_max) {
  const gguf::ArrayValue& array = required_array(file, key);
  const auto* views = std::get_if<std::vector<std::string_view>>(&array.elements);
  if (!views) throw Error(std::string(key) + ": an array of another type, expected strings");
  if (views->size() > n_max) {
    throw Error(std::string(key) + ": " + std::to_string(views->size()) +
                " elements, expected at most " + std::to_string(n_max));
  }
  return {views->begin(), views->end()};
}

std::vector<float> read_scores(const gguf::GgufFile& file) {
  const gguf::ArrayValue& array = required_array(file, kScoresKey);
  const auto* values = std::get_if<std::vector<double>>(&array.elements);
  if (!values) throw Error(std::string(kScoresKey) + ": an array of another type, expected f32");
  std::vector<float> scores;
  scores.reserve(values->size());
  for (const double value : *values)
    scores.push_back(static_cast<float>(value));
  return scores;
}

std::vector<int64_t> read_integers(const gguf::ArrayValue& array, const char* key) {
  if (const auto* values = std::get_if<std::vector<int64_t>>(&array.elements)) return *values;
  const auto* values = std::get_if<std::vector<uint64_t>>(&array.elements);
  if (!values) throw Error(std::string(key) + ": an array of another type, expected integers");
  std::vector<int64_t> integers;
  integers.reserve(values->size());
  for (const uint64_t value : *values) {
    integers.push_back(value > INT64_MAX ? -1 : static_cast<int64_t>(value));
  }
  return integers;
}

std::vector<TokenType> read_types(const gguf::GgufFile& file, size_t n_tokens) {
  const gguf::ArrayValue* array = file.find_array(kTypesKey);
  if (!array) return std::vector<TokenType>(n_tokens, TokenType::kNormal);
  std::vector<TokenType> types;
  types.reserve(array->size());
  for (const int64_t value : read_integers(*array, kTypesKey)) {
    if (value < 0 || value > static_cast<int64_t>(TokenType::kByte)) {
      throw Error(at(kTypesKey, types.size()) + ": " + std::to_string(value) + ", expected 0 to 6");
    }
    types.push_back(static_cast<TokenType>(value));
  }
  return types;
}

/// The id that `key` names; -1 when it says "none" (as files written from a null do), `fallback`
/// when it is absent.
int32_t read_id(const gguf::GgufFile& file, const std::string& key, int n_tokens,
                int32_t fallback) {
  const auto value = file.find_int(key);
  if (!value) return fallback < n_tokens ? fallback : -1;
  if (*value == -1 || *value == 0xFFFFFFFF) return -1;
  if (*value < 0 || *value >= n_tokens) {
    throw Error(key + ": " + std::to_string(*value) + ", expected a token id below " +
                std::to_string(n_tokens));
  }
  return static_cast<int32_t>(*value);
}

/// llama.cpp takes 11 for BOS and EOS of a BPE vocabulary that names none, which was Falcon's
/// "<|endoftext|>". In any other vocabulary 11 is an ordinary token, often the comma: not taken.
int32_t default_bpe_id(const Vocabulary& vocabulary) {
  constexpr size_t kFalconEnd = 11;
  const bool is_control =
      vocabulary.types.size() > kFalconEnd && vocabulary.types[kFalconEnd] == TokenType::kControl;
  return is_control ? static_cast<int32_t>(kFalconEnd) : -1;
}

void read_ids(const gguf::GgufFile& file, Vocabulary& v) {
  const bool is_spm = v.kind == VocabularyKind::kSentencePiece;
  const auto read = [&](const char* name, int32_t fallback) {
    return read_id(file, "tokenizer.ggml." + std::string(name) + "_token_id", v.size(), fallback);
  };
  v.bos = read("bos", is_spm ? 1 : default_bpe_id(v));
  v.eos = read("eos", is_spm ? 2 : default_bpe_id(v));
  v.unknown = read("unknown", is_spm ? 0 : -1);
  v.eot = read("eot", -1);
  v.eom = read("eom", -1);
  v.fim.prefix = read("fim_pre", read("prefix", -1));
  v.fim.suffix = read("fim_suf", read("suffix", -1));
  v.fim.middle = read("fim_mid", read("middle", -1));
  v.fim.pad = read("fim_pad", -1);
  v.fim.repository = read("fim_rep", -1);
  v.fim.separator = read("fim_sep", -1);
}

/// Ollama's own files may name several ends.
std::vector<int32_t> read_more_eog(const gguf::GgufFile& file, int n_tokens) {
  constexpr const char* kKey = "tokenizer.ggml.eos_token_ids";
  const gguf::ArrayValue* array = file.find_array(kKey);
  if (!array) return {};
  std::vector<int32_t> ids;
  for (const int64_t id : read_integers(*array, kKey)) {
    if (id < 0 || id >= n_tokens) {
      throw Error(at(kKey, ids.size()) + ": " + std::to_string(id) +
                  ", expected a token id below " + std::to_string(n_tokens));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

/// GGUF does not store which tokens take the white space beside them: known by name only.
void find_strip_rules(const gguf::GgufFile& file, Vocabulary& v) {
  std::string name(file.find_string("general.name").value_or(""));
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  const bool is_phi3 =
      name.find("phi-3") != std::string::npos || name.find("phi3") != std::string::npos;
  const bool is_jina = v.pre == "jina-v2-de" || v.pre == "jina-v2-es" || v.pre == "jina-v2-code";
  for (int32_t id = 0; id < v.size(); ++id) {
    const std::string& text = v.tokens[static_cast<size_t>(id)];
    const TokenType type = v.types[static_cast<size_t>(id)];
    const bool is_special = type == TokenType::kControl || type == TokenType::kUserDefined ||
                            type == TokenType::kUnknown;
    const bool keeps = text == "<unk>" || text == "<s>" || text == "<|endoftext|>";
    if (is_phi3 && ((is_special && !keeps) || text == "</s>")) v.strips_right.push_back(id);
    if (is_jina && text == "<mask>") v.strips_left.push_back(id);
  }
}

}  // namespace

Vocabulary read_vocabulary(const gguf::GgufFile& file) {
  Vocabulary v;
  v.kind = kind_of(file);
  const bool is_spm = v.kind == VocabularyKind::kSentencePiece;
  v.pre = file.find_string(kPreKey).value_or("");
  v.tokens = read_strings(file, kTokensKey, kMaxTokens);
  v.types = read_types(file, v.tokens.size());
  if (is_spm) v.scores = read_scores(file);
  if (!is_spm) v.merges = read_strings(file, kMergesKey, kMaxMerges);
  check_vocabulary(v);

  const PreTokenizerSpec* pre = is_spm ? nullptr : find_pre_tokenizer(v.pre);
  v.adds_bos =
      file.find_bool("tokenizer.ggml.add_bos_token").value_or(is_spm || (pre && pre->adds_bos));
  v.adds_eos = file.find_bool("tokenizer.ggml.add_eos_token").value_or(false);
  v.adds_space_prefix = is_spm && file.find_bool("tokenizer.ggml.add_space_prefix").value_or(true);
  read_ids(file, v);
  find_special_tokens(v, read_more_eog(file, v.size()));
  find_strip_rules(file, v);
  return v;
}

void check_vocabulary(const Vocabulary& v) {
  const size_t n = v.tokens.size();
  if (n == 0) throw Error(std::string(kTokensKey) + ": no tokens");
  const auto check_size = [n](const char* key, size_t size) {
    if (size == n) return;
    throw Error(std::string(key) + ": " + std::to_string(size) + " elements, expected " +
                std::to_string(n) + " as in " + kTokensKey);
  };
  check_size(kTypesKey, v.types.size());
  for (size_t i = 0; i < n; ++i) {
    if (v.tokens[i].size() > kMaxTokenBytes) {
      throw Error(at(kTokensKey, i) + ": " + std::to_string(v.tokens[i].size()) +
                  " bytes, expected at most " + std::to_string(kMaxTokenBytes));
    }
  }
  if (v.kind == VocabularyKind::kSentencePiece) {
    check_size(kScoresKey, v.scores.size());
    for (size_t i = 0; i < n; ++i) {
      if (std::isnan(v.scores[i])) throw Error(at(kScoresKey, i) + ": not a number");
    }
    return;
  }
  if (!find_pre_tokenizer(v.pre)) {
    throw Error(std::string(kPreKey) + ": '" + v.pre +
                "' is not a known pre-tokenizer; a newer dsctl may know it");
  }
  for (size_t i = 0; i < v.merges.size(); ++i) {
    const std::string& merge = v.merges[i];
    const size_t space = merge.find(' ', 1);
    if (space == std::string::npos || space + 1 == merge.size()) {
      throw Error(at(kMergesKey, i) + ": '" + merge + "', expected two symbols and a space");
    }
  }
}

}  // namespace dsctl::engine
