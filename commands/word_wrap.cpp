#include "commands/word_wrap.h"

#include <algorithm>
#include <iterator>

namespace dsctl::commands {
namespace {

struct Range {
  char32_t first, last;
};

// Wide (Unicode East Asian Width W and F, the blocks that matter in running text).
constexpr Range kWide[] = {
    {0x1100, 0x115F},   {0x231A, 0x231B},  {0x2E80, 0x303E}, {0x3041, 0x33FF},   {0x3400, 0x4DBF},
    {0x4E00, 0x9FFF},   {0xA000, 0xA4CF},  {0xA960, 0xA97F}, {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},
    {0xFE30, 0xFE6F},   {0xFF00, 0xFF60},  {0xFFE0, 0xFFE6}, {0x1F300, 0x1F64F}, {0x1F680, 0x1F6FF},
    {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
constexpr Range kCombining[] = {
    {0x0300, 0x036F}, {0x0483, 0x0489}, {0x0591, 0x05BD}, {0x0610, 0x061A},
    {0x064B, 0x065F}, {0x0900, 0x0902}, {0x093A, 0x093A}, {0x093C, 0x093C},
    {0x0941, 0x0948}, {0x0E31, 0x0E31}, {0x0E34, 0x0E3A}, {0x0E47, 0x0E4E},
    {0x200B, 0x200F}, {0x20D0, 0x20F0}, {0xFE00, 0xFE0F}, {0xFE20, 0xFE2F}};

template <size_t n>
bool contains(const Range (&ranges)[n], char32_t c) {
  const auto it = std::upper_bound(std::begin(ranges), std::end(ranges), c,
                                   [](char32_t value, const Range& r) { return value < r.first; });
  return it != std::begin(ranges) && c <= std::prev(it)->last;
}

size_t sequence_length(unsigned char first) {
  if (first < 0x80) return 1;
  if (first < 0xC0) return 1;  // stray: printed as it is
  if (first < 0xE0) return 2;
  if (first < 0xF0) return 3;
  return 4;
}

char32_t decode(std::string_view bytes) {
  const auto first = static_cast<unsigned char>(bytes[0]);
  if (bytes.size() == 1) return first;
  char32_t c = first & (0xFF >> (bytes.size() + 1));
  for (size_t i = 1; i < bytes.size(); ++i)
    c = c << 6 | (static_cast<unsigned char>(bytes[i]) & 0x3F);
  return c;
}

}  // namespace

int display_width(char32_t code_point) {
  if (contains(kCombining, code_point)) return 0;
  return contains(kWide, code_point) ? 2 : 1;
}

std::string WordWrap::push(std::string_view text) {
  if (width_ <= 0) return std::string(text);
  std::string out;
  std::string bytes = partial_ + std::string(text);
  partial_.clear();
  for (size_t i = 0; i < bytes.size();) {
    const size_t length = sequence_length(static_cast<unsigned char>(bytes[i]));
    if (i + length > bytes.size()) {
      partial_ = bytes.substr(i);
      break;
    }
    const std::string_view one = std::string_view(bytes).substr(i, length);
    i += length;
    const int width = display_width(decode(one));
    if (one == "\n") {
      flush_word(out);
      out += '\n';
      column_ = 0;
    } else if (one == " " || one == "\t") {
      flush_word(out);
      // A blank at the edge would wrap by itself and leave the next line indented.
      if (column_ + 1 >= width_) continue;
      out += one;
      column_ += 1;
    } else if (width == 2 || word_width_ + width >= width_) {
      // Text without spaces breaks anywhere.
      flush_word(out);
      word_ = one;
      word_width_ = width;
      flush_word(out);
    } else {
      word_ += one;
      word_width_ += width;
    }
  }
  return out;
}

std::string WordWrap::finish() {
  std::string out;
  flush_word(out);
  out += partial_;
  partial_.clear();
  return out;
}

void WordWrap::flush_word(std::string& out) {
  if (word_.empty()) return;
  if (column_ > 0 && column_ + word_width_ > width_ - 1) {
    out += '\n';
    column_ = 0;
  }
  out += word_;
  column_ += word_width_;
  word_.clear();
  word_width_ = 0;
}

}  // namespace dsctl::commands
