// WordWrap: breaks a stream of text between words at the terminal's width, as it comes.
#pragma once

#include <string>
#include <string_view>

namespace dsctl::commands {

class WordWrap {
 public:
  /// `width` columns; 0: nothing is wrapped.
  explicit WordWrap(int width) : width_(width) {}

  /// The part of the text that can be printed now. A word is held back until it is whole, or too
  /// long for a line.
  std::string push(std::string_view text);
  /// The end: what was held back.
  std::string finish();

 private:
  void flush_word(std::string& out);

  int width_ = 0;
  int column_ = 0;
  int word_width_ = 0;
  std::string word_;     // not printed yet
  std::string partial_;  // an incomplete code point
};

/// Columns that a code point takes on a terminal: 2 for East Asian wide ones and emoji, 0 for
/// combining marks.
int display_width(char32_t code_point);

}  // namespace dsctl::commands
