#include "templates/jinja/unicode.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "templates/jinja/unicode_tables.h"

namespace dsctl::templates::jinja {
namespace {

constexpr uint32_t kEscapedByte = 0xDC00;

bool is_continuation(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) == 0x80;
}

bool in_ranges(std::span<const CodeRange> ranges, uint32_t code) {
  const auto found =
      std::upper_bound(ranges.begin(), ranges.end(), code,
                       [](uint32_t value, const CodeRange& range) { return value < range.first; });
  return found != ranges.begin() && code <= std::prev(found)->last;
}

struct CaseTable {
  std::span<const CaseRun> runs;
  std::span<const CaseSpecial> specials;
};

CaseTable upper_table() {
  return {{kToUpperRuns, kToUpperCount}, {kToUpperSpecials, kToUpperSpecialCount}};
}

CaseTable lower_table() {
  return {{kToLowerRuns, kToLowerCount}, {kToLowerSpecials, kToLowerSpecialCount}};
}

CaseTable title_table() {
  return {{kToTitleRuns, kToTitleCount}, {kToTitleSpecials, kToTitleSpecialCount}};
}

void append_mapped(std::string& out, const CaseTable& table, uint32_t code) {
  const auto special =
      std::lower_bound(table.specials.begin(), table.specials.end(), code,
                       [](const CaseSpecial& entry, uint32_t value) { return entry.code < value; });
  if (special != table.specials.end() && special->code == code) {
    out += special->text;
    return;
  }
  const auto after =
      std::upper_bound(table.runs.begin(), table.runs.end(), code,
                       [](uint32_t value, const CaseRun& run) { return value < run.first; });
  if (after != table.runs.begin()) {
    const CaseRun& run = *std::prev(after);
    if (code <= run.last && (code - run.first) % static_cast<uint32_t>(run.step) == 0) {
      append_code(out, static_cast<uint32_t>(static_cast<int64_t>(code) + run.delta));
      return;
    }
  }
  append_code(out, code);
}

/// A capital sigma at the end of a word becomes a final one.
bool is_final_sigma(const std::vector<uint32_t>& codes, size_t index) {
  const auto ignorable = [](uint32_t code) {
    return in_ranges({kCaseIgnorableRanges, kCaseIgnorableCount}, code);
  };
  size_t before = index;
  while (before > 0 && ignorable(codes[before - 1]))
    --before;
  if (before == 0 || !is_cased(codes[before - 1])) return false;
  size_t after = index + 1;
  while (after < codes.size() && ignorable(codes[after]))
    ++after;
  return after == codes.size() || !is_cased(codes[after]);
}

void append_lower(std::string& out, const std::vector<uint32_t>& codes, size_t index) {
  if (codes[index] == 0x3A3) {
    append_code(out, is_final_sigma(codes, index) ? 0x3C2 : 0x3C3);
  } else {
    append_mapped(out, lower_table(), codes[index]);
  }
}

bool is_line_break(uint32_t code) {
  return (code >= '\n' && code <= '\r') || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

/// Start of the last code point of a non-empty text.
size_t last_code_start(std::string_view text) {
  for (size_t back = 1; back <= std::min<size_t>(4, text.size()); ++back) {
    const size_t start = text.size() - back;
    if (is_continuation(text[start])) continue;
    // A broken sequence stands as single bytes: only a whole one may be taken at once.
    if (decode(text, start).size_bytes == back) return start;
    break;
  }
  return text.size() - 1;
}

}  // namespace

CodePoint decode(std::string_view text, size_t pos) {
  const auto byte = [&](size_t offset) {
    return static_cast<uint32_t>(static_cast<unsigned char>(text[pos + offset]));
  };
  const uint32_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  const CodePoint broken = {kEscapedByte + first, 1};
  if (first < 0xC2 || first > 0xF4 || pos + size > text.size()) return broken;
  uint32_t code = first & (0xFF >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if (!is_continuation(text[pos + i])) return broken;
    code = code << 6 | (byte(i) & 0x3F);
  }
  const bool overlong = (size == 3 && code < 0x800) || (size == 4 && code < 0x10000);
  if (overlong || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return broken;
  return {code, size};
}

void append_code(std::string& out, uint32_t code) {
  if (code >= kEscapedByte + 0x80 && code <= kEscapedByte + 0xFF) {
    out += static_cast<char>(code - kEscapedByte);
    return;
  }
  // No UTF-8 text can hold a lone surrogate or more than Unicode has.
  if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) code = 0xFFFD;
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

std::vector<uint32_t> decode_all(std::string_view text) {
  std::vector<uint32_t> codes;
  codes.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint point = decode(text, pos);
    codes.push_back(point.code);
    pos += point.size_bytes;
  }
  return codes;
}

bool is_ascii(std::string_view text) {
  return std::none_of(text.begin(), text.end(),
                      [](char c) { return static_cast<unsigned char>(c) >= 0x80; });
}

size_t code_length(std::string_view text) {
  size_t count = 0;
  for (size_t pos = 0; pos < text.size(); pos += decode(text, pos).size_bytes)
    ++count;
  return count;
}

size_t byte_offset(std::string_view text, size_t index) {
  size_t pos = 0;
  for (; index > 0 && pos < text.size(); --index)
    pos += decode(text, pos).size_bytes;
  return pos;
}

bool is_space(uint32_t code) {
  return (code >= '\t' && code <= '\r') || (code >= 0x1c && code <= ' ') || code == 0x85 ||
         code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool is_alpha(uint32_t code) {
  return in_ranges({kAlphaRanges, kAlphaCount}, code);
}

bool is_decimal(uint32_t code) {
  return in_ranges({kDecimalRanges, kDecimalCount}, code);
}

bool is_digit(uint32_t code) {
  return in_ranges({kDigitRanges, kDigitCount}, code);
}

bool is_numeric(uint32_t code) {
  return in_ranges({kNumericRanges, kNumericCount}, code);
}

bool is_alnum(uint32_t code) {
  return is_alpha(code) || is_decimal(code) || is_digit(code) || is_numeric(code);
}

bool is_lower(uint32_t code) {
  return in_ranges({kLowerRanges, kLowerCount}, code);
}

bool is_upper(uint32_t code) {
  return in_ranges({kUpperRanges, kUpperCount}, code);
}

bool is_title(uint32_t code) {
  return in_ranges({kTitleRanges, kTitleCount}, code);
}

bool is_cased(uint32_t code) {
  return is_lower(code) || is_upper(code) || is_title(code);
}

bool is_printable(uint32_t code) {
  return in_ranges({kPrintableRanges, kPrintableCount}, code);
}

std::string to_upper(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint point = decode(text, pos);
    append_mapped(out, upper_table(), point.code);
    pos += point.size_bytes;
  }
  return out;
}

std::string to_lower(std::string_view text) {
  const std::vector<uint32_t> codes = decode_all(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < codes.size(); ++i)
    append_lower(out, codes, i);
  return out;
}

std::string to_title(std::string_view text) {
  const std::vector<uint32_t> codes = decode_all(text);
  std::string out;
  out.reserve(text.size());
  bool inside_word = false;
  for (size_t i = 0; i < codes.size(); ++i) {
    if (inside_word) {
      append_lower(out, codes, i);
    } else {
      append_mapped(out, title_table(), codes[i]);
    }
    inside_word = is_cased(codes[i]);
  }
  return out;
}

std::string capitalize(std::string_view text) {
  const std::vector<uint32_t> codes = decode_all(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    if (i == 0) {
      append_mapped(out, title_table(), codes[i]);
    } else {
      append_lower(out, codes, i);
    }
  }
  return out;
}

std::string swap_case(std::string_view text) {
  const std::vector<uint32_t> codes = decode_all(text);
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < codes.size(); ++i) {
    if (is_upper(codes[i])) {
      append_lower(out, codes, i);
    } else if (is_lower(codes[i])) {
      append_mapped(out, upper_table(), codes[i]);
    } else {
      append_code(out, codes[i]);
    }
  }
  return out;
}

std::string_view strip_left(std::string_view text) {
  while (!text.empty()) {
    const CodePoint point = decode(text, 0);
    if (!is_space(point.code)) break;
    text.remove_prefix(point.size_bytes);
  }
  return text;
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    const size_t start = last_code_start(text);
    if (!is_space(decode(text, start).code)) break;
    text = text.substr(0, start);
  }
  return text;
}

std::string_view strip_left(std::string_view text, std::string_view chars) {
  const std::vector<uint32_t> set = decode_all(chars);
  while (!text.empty()) {
    const CodePoint point = decode(text, 0);
    if (std::find(set.begin(), set.end(), point.code) == set.end()) break;
    text.remove_prefix(point.size_bytes);
  }
  return text;
}

std::string_view strip_right(std::string_view text, std::string_view chars) {
  const std::vector<uint32_t> set = decode_all(chars);
  while (!text.empty()) {
    const size_t start = last_code_start(text);
    if (std::find(set.begin(), set.end(), decode(text, start).code) == set.end()) break;
    text = text.substr(0, start);
  }
  return text;
}

size_t find_text(std::string_view text, std::string_view wanted, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (wanted.empty()) return from;
  const void* found = memmem(text.data() + from, text.size() - from, wanted.data(), wanted.size());
  if (!found) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const CodePoint point = decode(text, pos);
    size_t next = pos + point.size_bytes;
    if (is_line_break(point.code)) {
      if (point.code == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back(text.substr(start, (keep_ends ? next : pos) - start));
      start = next;
    }
    pos = next;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

}  // namespace dsctl::templates::jinja
