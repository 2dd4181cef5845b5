// Unicode for tokenizers: UTF-8 one code point at a time, and the classes that pre-tokenizers ask
// for. Ours and not a library's, so that token ids do not change with the version of a library.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "engine/tokenizer/unicode_tables.h"

namespace dsctl::engine {

using ClassMask = uint16_t;

inline constexpr ClassMask kLu = static_cast<ClassMask>(Category::Lu);
inline constexpr ClassMask kLl = static_cast<ClassMask>(Category::Ll);
inline constexpr ClassMask kLt = static_cast<ClassMask>(Category::Lt);
inline constexpr ClassMask kLm = static_cast<ClassMask>(Category::Lm);
inline constexpr ClassMask kLo = static_cast<ClassMask>(Category::Lo);
inline constexpr ClassMask kMark = static_cast<ClassMask>(Category::M);
inline constexpr ClassMask kNumber = static_cast<ClassMask>(Category::N);
inline constexpr ClassMask kPunctuation = static_cast<ClassMask>(Category::P);
inline constexpr ClassMask kSymbol = static_cast<ClassMask>(Category::S);
inline constexpr ClassMask kLetter = kLu | kLl | kLt | kLm | kLo;
inline constexpr ClassMask kWhiteSpace = 1 << 10;  // the property White_Space
inline constexpr ClassMask kNewline = 1 << 11;     // CR and LF only

/// One code point of a text.
struct CodePoint {
  uint32_t value;  // U+FFFD for a byte that is not part of valid UTF-8
  int n_bytes;     // 1 to 4; 1 for an invalid byte
  bool valid;
};

/// The code point that begins at `text`; `end` > `text`. An invalid byte stands alone.
CodePoint decode_utf8(const char* text, const char* end);

/// Appends `code_point` in UTF-8.
void append_utf8(uint32_t code_point, std::string& out);

/// `text` with every maximal invalid part replaced by U+FFFD, as Python's errors="replace" does.
std::string replace_invalid_utf8(std::string_view text);

/// How many bytes at the end of `text` are the beginning of a code point that is still incomplete
/// (0 to 3).
size_t incomplete_utf8_tail(std::string_view text);

/// Classes of code points by table look-up. One instance for the process.
class UnicodeClasses {
 public:
  static const UnicodeClasses& instance();

  ClassMask of(uint32_t code_point) const {
    return blocks_[block_of_[code_point / kBlock] * kBlock + code_point % kBlock];
  }
  ClassMask of_ascii(unsigned char byte) const { return ascii_[byte]; }

 private:
  static constexpr uint32_t kBlock = 128;
  static constexpr uint32_t kNumBlocks = 0x110000 / kBlock;

  UnicodeClasses();

  std::array<ClassMask, 128> ascii_{};
  std::array<uint16_t, kNumBlocks> block_of_{};
  std::unique_ptr<ClassMask[]> blocks_;
};

}  // namespace dsctl::engine
