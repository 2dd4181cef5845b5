#include "engine/tokenizer/unicode.h"

#include <algorithm>
#include <map>
#include <vector>

namespace dsctl::engine {

namespace {

constexpr uint32_t kReplacement = 0xFFFD;

// PropList.txt, White_Space: what \s means to the engines that the vocabularies were made with.
constexpr struct {
  uint32_t first, last;
} kWhiteSpaceRanges[] = {{0x09, 0x0D},     {0x20, 0x20},     {0x85, 0x85},     {0xA0, 0xA0},
                         {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F},
                         {0x205F, 0x205F}, {0x3000, 0x3000}};

/// What may follow a lead byte: the length of the sequence and the range of its second byte
/// (Unicode, table 3-7). Length 0: not a lead byte.
struct Lead {
  int n_bytes;
  unsigned char second_first;
  unsigned char second_last;
};

Lead lead_of(unsigned char byte) {
  if (byte >= 0xC2 && byte <= 0xDF) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte >= 0xE1 && byte <= 0xEF) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte >= 0xF1 && byte <= 0xF3) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

/// The number of bytes at `text` that are the beginning of a sequence announced by `lead`.
int n_well_formed(const char* text, const char* end, Lead lead) {
  const auto byte = [text](int i) { return static_cast<unsigned char>(text[i]); };
  const int n_present = static_cast<int>(std::min<ptrdiff_t>(end - text, lead.n_bytes));
  if (n_present < 2 || byte(1) < lead.second_first || byte(1) > lead.second_last) return 1;
  int n = 2;
  while (n < n_present && (byte(n) & 0xC0) == 0x80)
    ++n;
  return n;
}

}  // namespace

CodePoint decode_utf8(const char* text, const char* end) {
  const auto byte = [text](int i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = byte(0);
  if (first < 0x80) return {first, 1, true};
  const Lead lead = lead_of(first);
  if (lead.n_bytes == 0 || n_well_formed(text, end, lead) < lead.n_bytes) {
    return {kReplacement, 1, false};
  }
  uint32_t value = first & (0x7Fu >> lead.n_bytes);
  for (int i = 1; i < lead.n_bytes; ++i)
    value = value << 6 | (byte(i) & 0x3Fu);
  return {value, lead.n_bytes, true};
}

void append_utf8(uint32_t code_point, std::string& out) {
  const auto put = [&out](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const CodePoint c = decode_utf8(p, end);
    if (c.valid) {
      out.append(p, static_cast<size_t>(c.n_bytes));
      p += c.n_bytes;
      continue;
    }
    append_utf8(kReplacement, out);
    const Lead lead = lead_of(static_cast<unsigned char>(*p));
    p += lead.n_bytes == 0 ? 1 : n_well_formed(p, end, lead);
  }
  return out;
}

size_t incomplete_utf8_tail(std::string_view text) {
  const char* const end = text.data() + text.size();
  for (size_t n = 1; n <= std::min<size_t>(3, text.size()); ++n) {
    const char* const start = end - n;
    const Lead lead = lead_of(static_cast<unsigned char>(*start));
    if (lead.n_bytes == 0) continue;
    const bool all_belong = n_well_formed(start, end, lead) == static_cast<int>(n);
    return all_belong && static_cast<int>(n) < lead.n_bytes ? n : 0;
  }
  return 0;
}

const UnicodeClasses& UnicodeClasses::instance() {
  static const UnicodeClasses classes;
  return classes;
}

UnicodeClasses::UnicodeClasses() {
  std::vector<ClassMask> flat(0x110000, 0);
  for (int i = 0; i < kNumCategoryRanges; ++i) {
    const CategoryRange& range = kCategoryRanges[i];
    std::fill(flat.begin() + range.first, flat.begin() + range.last + 1,
              static_cast<ClassMask>(range.category));
  }
  for (const auto& range : kWhiteSpaceRanges) {
    for (uint32_t c = range.first; c <= range.last; ++c)
      flat[c] |= kWhiteSpace;
  }
  flat['\r'] |= kNewline;
  flat['\n'] |= kNewline;
  std::copy_n(flat.begin(), ascii_.size(), ascii_.begin());

  // Most blocks are equal to another (unassigned, CJK, Hangul): 2 MB become about 100 KB.
  std::map<std::vector<ClassMask>, uint16_t> known;
  for (uint32_t i = 0; i < kNumBlocks; ++i) {
    std::vector<ClassMask> block(flat.begin() + i * kBlock, flat.begin() + (i + 1) * kBlock);
    const auto [it, is_new] = known.try_emplace(std::move(block), known.size());
    block_of_[i] = it->second;
  }
  blocks_ = std::make_unique<ClassMask[]>(known.size() * kBlock);
  for (const auto& [block, index] : known) {
    std::copy(block.begin(), block.end(), blocks_.get() + index * kBlock);
  }
}

}  // namespace dsctl::engine
