// Vocabularies for tokenizer tests: small ones by hand, and the real ones of the shared data,
// written as GGUF files as a converter writes them.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/tokenizer.h"
#include "engine/tokenizer/vocabulary.h"

namespace dsctl::tests {

/// A byte-level BPE vocabulary: the 256 bytes, what `merges` make, then the tokens "<|end|>"
/// (control) and "<tool>" (user-defined).
engine::Vocabulary small_bpe(const std::vector<std::string>& merges,
                             std::string_view pre = "gpt-2");

/// A SentencePiece vocabulary: <unk> <s> </s>, the 256 byte tokens, then `tokens` with scores 0,
/// -1, -2 and so on, "▁" for the space.
engine::Vocabulary small_spm(const std::vector<std::string>& tokens);

/// Writes `vocabulary` as a GGUF file without tensors.
void write_gguf(const engine::Vocabulary& vocabulary, const std::filesystem::path& path);

/// The tokenizer of shared/data/tokenizers/NAME.tar.xz ("qwen3", "deepseek_v3", "llama3_1",
/// "gemma3"), by way of a GGUF file; null when the data is not there.
std::unique_ptr<engine::Tokenizer> real_tokenizer(const std::string& name);

/// The vocabulary of a file tokenizer.json with a BPE model, as a converter would write it.
engine::Vocabulary vocabulary_of_json(const std::filesystem::path& path, std::string_view pre);

/// Llama 3.2's vocabulary of the shared data (encoder.json and vocab.bpe); null without the data.
std::unique_ptr<engine::Tokenizer> llama3_2_tokenizer();

}  // namespace dsctl::tests
