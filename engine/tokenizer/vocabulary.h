// Vocabulary: the tokenizer's part of a GGUF file as plain, checked values; what the algorithms are
// built from, and what tests build by hand.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "gguf/gguf_file.h"

namespace dsctl::engine {

/// tokenizer.ggml.model.
enum class VocabularyKind {
  kBytePairs,      // "gpt2": byte-level BPE with merges
  kSentencePiece,  // "llama": SentencePiece BPE by score, with byte fallback
};

struct Vocabulary {
  VocabularyKind kind = VocabularyKind::kBytePairs;
  std::string pre;                  // tokenizer.ggml.pre; "" when absent
  std::vector<std::string> tokens;  // (vocab_size) as stored
  std::vector<float> scores;        // (vocab_size) for kSentencePiece, else empty
  std::vector<TokenType> types;     // (vocab_size)
  std::vector<std::string> merges;  // "left right", best first; kBytePairs only

  bool adds_bos = false;
  bool adds_eos = false;
  bool adds_space_prefix = false;  // kSentencePiece: a space before a text that begins or follows
                                   // a special token
  // Tokens by id: white space of the text after (before) the token belongs to it.
  std::vector<int32_t> strips_right;
  std::vector<int32_t> strips_left;

  // Special tokens; -1 when there is none.
  int32_t bos = -1;
  int32_t eos = -1;
  int32_t unknown = -1;
  int32_t eot = -1;
  int32_t eom = -1;
  FimTokens fim;
  std::vector<int32_t> eog;  // ascending

  int size() const { return static_cast<int>(tokens.size()); }
};

/// Reads and checks the vocabulary of `file`. Throws Error naming the key that is missing,
/// inconsistent or not supported.
Vocabulary read_vocabulary(const gguf::GgufFile& file);

/// Fills what is found by a token's text: end of turn, end of message, fill-in-the-middle, and the
/// set of tokens that end a generation, to which `more_eog` is added. Tokens so found become
/// control tokens. read_vocabulary calls this; so do tests that make a vocabulary by hand.
void find_special_tokens(Vocabulary& vocabulary, const std::vector<int32_t>& more_eog);

/// Checks what the algorithms rely on. Throws Error naming the key.
void check_vocabulary(const Vocabulary& vocabulary);

/// The tokenizer of `vocabulary`. Throws Error when it is inconsistent.
std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary);

}  // namespace dsctl::engine
