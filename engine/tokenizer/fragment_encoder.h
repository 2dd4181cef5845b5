// FragmentEncoder: what turns a stretch of plain text, between special tokens, into tokens. The
// seam between the two algorithms and the rest of the tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/tokenizer/vocabulary.h"

namespace dsctl::engine {

/// Immutable; thread-safe.
class FragmentEncoder {
 public:
  virtual ~FragmentEncoder() = default;

  /// Appends the tokens of `text`, shorter than 4 GiB.
  virtual void encode(std::string_view text, std::vector<int32_t>& out) const = 0;
};

/// Byte-level BPE. `pieces[id]`: the bytes that the token stands for; must outlive the encoder.
std::unique_ptr<FragmentEncoder> make_bpe_encoder(const Vocabulary& vocabulary,
                                                  const std::vector<std::string_view>& pieces);

/// SentencePiece BPE; the space in `text` and in `pieces` is what the vocabulary writes as U+2581.
std::unique_ptr<FragmentEncoder> make_spm_encoder(const Vocabulary& vocabulary,
                                                  const std::vector<std::string_view>& pieces);

/// The byte that `code_point` stands for in the alphabet of byte-level BPE, or -1.
int byte_of_bpe_code_point(uint32_t code_point);

/// The byte that a token of type kByte writes as "<0xHH>"; -1 for another text.
int byte_of_token(std::string_view text);

}  // namespace dsctl::engine
