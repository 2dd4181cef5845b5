// Tokenizer: text to token ids and back, as the GGUF's own vocabulary says.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"

namespace dsctl::engine {

enum class SpecialTokens { kParse, kAsText };  // is "<|im_end|>" in the text the control token?
enum class AddSpecial { kYes, kNo };           // prepend BOS / append EOS as the vocabulary asks

enum class TokenType { kUndefined, kNormal, kUnknown, kControl, kUserDefined, kUnused, kByte };

/// Tokens of fill-in-the-middle prompts: prefix + text before + suffix + text after + middle. -1
/// when there is none.
struct FimTokens {
  int32_t prefix = -1;
  int32_t suffix = -1;
  int32_t middle = -1;
  int32_t pad = -1;
  int32_t repository = -1;
  int32_t separator = -1;
};

/// Immutable after construction; every function is thread-safe.
class Tokenizer {
 public:
  /// Builds the tokenizer of `file`. Copies what it needs: `file` may be closed afterwards. Throws
  /// Error naming the key when the vocabulary is missing, inconsistent or of an unsupported kind.
  static std::unique_ptr<Tokenizer> from_gguf(const gguf::GgufFile& file);

  virtual ~Tokenizer() = default;

  /// Token ids of `text` (UTF-8; invalid bytes are kept as well as the vocabulary can). BOS is
  /// added only when `add_special` asks, the vocabulary wants it and the text does not begin with
  /// it.
  virtual std::vector<int32_t> encode(std::string_view text, AddSpecial add_special,
                                      SpecialTokens special) const = 0;

  /// The bytes that `token` adds to the output; empty for control tokens unless `special` is
  /// kParse. Not necessarily whole code points: see StreamDecoder.
  virtual std::string_view piece(int32_t token, SpecialTokens special) const = 0;

  /// Whole-sequence decoding: pieces joined, the SPM leading space removed, invalid UTF-8 replaced.
  virtual std::string decode(std::span<const int32_t> tokens, SpecialTokens special) const = 0;

  virtual int vocab_size() const = 0;
  virtual std::string_view text(int32_t token) const = 0;  // as stored in the vocabulary
  virtual TokenType type(int32_t token) const = 0;
  /// The token whose stored text is `text`, or -1.
  virtual int32_t find(std::string_view text) const = 0;

  virtual int32_t bos() const = 0;  // -1 when there is none, like the others
  virtual int32_t eos() const = 0;
  virtual bool adds_bos() const = 0;
  virtual bool adds_eos() const = 0;
  virtual int32_t eot() const { return -1; }  // end of turn
  virtual int32_t eom() const { return -1; }  // end of message: a tool is called
  virtual FimTokens fim() const { return {}; }
  /// True when encoding puts a space before a text that begins or follows a control token, so that
  /// decoding takes it away again.
  virtual bool adds_space_prefix() const { return false; }
  /// True when a text after `token` counts as the beginning of one (a special token splits it).
  bool begins_fragment_after(int32_t token) const;
  /// Tokens that end a generation (EOS, EOT, EOM and their kin), ascending.
  virtual const std::vector<int32_t>& eog_tokens() const = 0;
  virtual bool is_eog(int32_t token) const = 0;
  /// "gpt2 (qwen2)" or "llama": for `show` and messages.
  virtual std::string description() const = 0;
};

}  // namespace dsctl::engine
