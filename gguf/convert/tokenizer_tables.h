// The tokenizer of a checkpoint as the tables that GGUF has: read from tokenizer.model
// (SentencePiece), tokenizer.json, or vocab.json and merges.txt, as llama.cpp's converter does.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::gguf::convert {

/// tokenizer.ggml.token_type.
enum class TokenKind : int32_t {
  kNormal = 1,
  kUnknown = 2,
  kControl = 3,
  kUserDefined = 4,
  kUnused = 5,
  kByte = 6,
};

struct TokenizerTables {
  std::string model;                // "gpt2" or "llama"
  std::string pre;                  // what the pre-tokenizer's regexes say: "qwen2"; "default"
  std::vector<std::string> tokens;  // (vocab_size)
  std::vector<int32_t> types;       // (vocab_size) TokenKind
  std::vector<float> scores;        // (vocab_size) for "llama", else empty
  std::vector<std::string> merges;  // "left right", best first; "gpt2" only
  bool ignores_merges = false;      // a piece that is a token is taken whole
  // Filled from the special tokens; -1 when there is none.
  int32_t bos = -1;
  bool adds_bos = false;
};

/// What a checkpoint's files and its class ask for.
struct TokenizerRequest {
  std::filesystem::path dir;
  int64_t vocab_size = 0;          // of the embedding: missing tokens become [PADi]
  std::string pre_tokenizer;       // taken instead of what the regexes say; "" takes that
  std::vector<std::string> notes;  // what a person should know of choices that were made
};

/// Reads the tables. Throws Error naming the file and the field; a tokenizer of another kind
/// (WordPiece, Unigram without tokenizer.model), a pre-tokenizer that is not known, ids beyond
/// `vocab_size`.
TokenizerTables read_tokenizer(TokenizerRequest& request);

/// A SentencePiece model's vocabulary: the fields of its protobuf that matter here.
struct SentencePiece {
  std::string text;
  float score = 0;
  TokenKind kind = TokenKind::kNormal;
};

/// Parses the bytes of a tokenizer.model. `label` is the file in messages. Throws Error: fields
/// that are cut short, more than a million pieces, a type that is unknown, no pieces.
std::vector<SentencePiece> parse_sentencepiece(std::string_view bytes, std::string_view label);

/// Parses tokenizer.json text for the fuzz target; otherwise internal.
TokenizerTables parse_tokenizer_json(std::string_view text, TokenizerRequest& request);

}  // namespace dsctl::gguf::convert
