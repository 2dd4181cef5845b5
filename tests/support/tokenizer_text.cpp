#include "tests/support/tokenizer_text.h"

#include <iterator>
#include <string_view>

#include "engine/tokenizer/unicode.h"

namespace dsctl::tests {

namespace {

// Blocks whose characters the rules tell apart.
constexpr struct {
  uint32_t first, last;
} kBlocks[] = {
    {0x20, 0x7E},       {0x20, 0x7E},       {0x41, 0x5A},       {0x61, 0x7A},
    {0x30, 0x39},       {0x00, 0x1F},       {0x7F, 0xFF},       {0x100, 0x24F},
    {0x2B0, 0x36F},     {0x370, 0x3FF},     {0x400, 0x4FF},     {0x590, 0x5FF},
    {0x600, 0x6FF},     {0x900, 0x97F},     {0xE00, 0xE7F},     {0x10A0, 0x10FF},
    {0x1100, 0x11FF},   {0x1E00, 0x1FFF},   {0x2000, 0x206F},   {0x2070, 0x20CF},
    {0x2150, 0x218F},   {0x2190, 0x23FF},   {0x2460, 0x24FF},   {0x3000, 0x303F},
    {0x3040, 0x30FF},   {0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0x4E00, 0x9FFF},
    {0xAC00, 0xD7A3},   {0xE000, 0xE010},   {0xFE00, 0xFE0F},   {0xFF00, 0xFFEF},
    {0x10400, 0x104FF}, {0x1D400, 0x1D7FF}, {0x1F300, 0x1FAFF}, {0x20000, 0x2A6DF},
};

constexpr std::string_view kParts[] = {
    " ",       "  ",         "\n",          "\r\n",   "\n\n",   "\t",       "\t\t",      "   ",
    " \n ",    "'s",         "'LL",         "'re",    "'Ve",    "'D",       "'ſ",        "'",
    "''",      "I'm",        "don't",       "The",    " quick", "HTTP",     "camelCase", "x1",
    "123",     "12345",      " 7",          "1,000",  "3.14",   "٣٤",       "½",         "Ⅳ",
    "()",      "{}",         "//",          "/*",     "->",     "::",       "==",        "!=",
    "<|",      "|>",         "...",         "!!",     "?",      "#include", "return ",   "def f(",
    "</p>",    "://",        "\\n",         "$x",     "@a",     "_",        "你好",      "，",
    "。",      "こんにちは", "한국어",      "Привет", "مرحبا",  "नमस्ते",     "สวัสดี",      "é",
    "e\u0301", "\u200D",     "👩‍💻", "🇩🇪",     "\u00A0", "\u3000",   "\u2028",    "\u0085",
    "\u180E",  "▁",          "\uFFFD",      "ǅ",      "ʰ",      "\uFEFF",   "™",         "€",
    "^~`+"};

}  // namespace

uint32_t RandomText::code_point() {
  const auto& block = kBlocks[below(std::size(kBlocks))];
  return block.first + static_cast<uint32_t>(below(static_cast<int>(block.last - block.first + 1)));
}

void RandomText::append_part(std::string& out) {
  switch (below(8)) {
    case 0:
    case 1:
      engine::append_utf8(code_point(), out);
      return;
    case 2: {  // a run of one character
      const uint32_t c = code_point();
      for (int n = 1 + below(6); n > 0; --n)
        engine::append_utf8(c, out);
      return;
    }
    case 3: {  // a word of one block
      const auto& block = kBlocks[below(std::size(kBlocks))];
      const int n_block = static_cast<int>(block.last - block.first + 1);
      for (int n = 1 + below(8); n > 0; --n) {
        engine::append_utf8(block.first + static_cast<uint32_t>(below(n_block)), out);
      }
      return;
    }
    case 4: {  // an ASCII word
      for (int n = 1 + below(9); n > 0; --n)
        out += static_cast<char>('a' + below(26));
      return;
    }
    default:
      out += kParts[below(std::size(kParts))];
  }
}

std::string RandomText::next(int n_max, bool broken) {
  std::string out;
  for (int n = 1 + below(n_max); n > 0; --n) {
    append_part(out);
    if (broken && below(3) == 0) {
      switch (below(3)) {
        case 0:
          out += static_cast<char>(below(256));
          break;
        case 1:
          if (!out.empty()) out.pop_back();
          break;
        default:
          out += "\xED\xA0\x80";  // a surrogate
      }
    }
  }
  return out;
}

}  // namespace dsctl::tests
