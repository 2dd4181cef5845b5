#include "engine/grammar/syntax.h"

#include <algorithm>
#include <utility>

namespace dsctl::engine::grammar {
namespace {

constexpr char32_t kFirstSurrogate = 0xD800;
constexpr char32_t kBeforeSurrogates = kFirstSurrogate - 1;
constexpr char32_t kLastSurrogate = 0xDFFF;
constexpr char32_t kAfterSurrogates = kLastSurrogate + 1;
constexpr char32_t kReplacement = 0xFFFD;

}  // namespace

CharSet normalized(CharSet set) {
  std::sort(set.begin(), set.end(),
            [](const CodeRange& a, const CodeRange& b) { return a.first < b.first; });
  CharSet joined;
  const auto add = [&](CodeRange range) {
    if (range.first > range.last) return;
    if (!joined.empty() && range.first <= joined.back().last + 1) {
      joined.back().last = std::max(joined.back().last, range.last);
    } else {
      joined.push_back(range);
    }
  };
  for (const CodeRange& range : set) {
    const char32_t last = std::min(range.last, kLastCodePoint);
    if (range.first < kFirstSurrogate) {
      add({range.first, std::min(last, kBeforeSurrogates)});
    }
    if (last > kLastSurrogate) add({std::max(range.first, kAfterSurrogates), last});
  }
  return joined;
}

CharSet complement(const CharSet& set) {
  CharSet rest;
  char32_t next = 0;
  for (const CodeRange& range : set) {
    if (range.first > next) rest.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCodePoint) rest.push_back({next, kLastCodePoint});
  return normalized(std::move(rest));
}

CharSet intersection(const CharSet& a, const CharSet& b) {
  CharSet both;
  for (size_t i = 0, j = 0; i < a.size() && j < b.size();) {
    const char32_t first = std::max(a[i].first, b[j].first);
    const char32_t last = std::min(a[i].last, b[j].last);
    if (first <= last) both.push_back({first, last});
    if (a[i].last < b[j].last) {
      ++i;
    } else {
      ++j;
    }
  }
  return both;
}

Expr chars(CharSet set) {
  return {.kind = Expr::Kind::kChars, .chars = normalized(std::move(set))};
}

Expr literal(std::u32string_view text) {
  std::vector<Expr> parts;
  parts.reserve(text.size());
  for (const char32_t code_point : text)
    parts.push_back(chars({{code_point, code_point}}));
  return sequence(std::move(parts));
}

Expr literal(std::string_view text) {
  return literal(std::u32string_view(decode_utf8(text)));
}

Expr sequence(std::vector<Expr> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  return {.kind = Expr::Kind::kSequence, .parts = std::move(parts)};
}

Expr choice(std::vector<Expr> parts) {
  if (parts.size() == 1) return std::move(parts.front());
  return {.kind = Expr::Kind::kChoice, .parts = std::move(parts)};
}

Expr repeat(Expr part, int min, int max) {
  Expr expr{.kind = Expr::Kind::kRepeat, .min = min, .max = max};
  expr.parts.push_back(std::move(part));
  return expr;
}

Expr optional(Expr part) {
  return repeat(std::move(part), 0, 1);
}

Expr rule(int rule_idx) {
  return {.kind = Expr::Kind::kRule, .rule_idx = rule_idx};
}

std::u32string decode_utf8(std::string_view text) {
  std::u32string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80   ? 1
                          : lead < 0xC2 ? 0
                          : lead < 0xE0 ? 2
                          : lead < 0xF0 ? 3
                          : lead < 0xF5 ? 4
                                        : 0;
    char32_t value = length < 2 ? lead : lead & (0x7Fu >> length);
    bool valid = length != 0 && i + length <= text.size();
    for (size_t k = 1; valid && k < length; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + k]);
      valid = (byte & 0xC0) == 0x80;
      value = (value << 6) | (byte & 0x3Fu);
    }
    valid = valid && !(length == 3 && value < 0x800) && !(length == 4 && value < 0x10000) &&
            value <= kLastCodePoint && (value < kFirstSurrogate || value > kLastSurrogate);
    out += valid ? value : kReplacement;
    i += valid ? length : 1;
  }
  return out;
}

std::string encode_utf8(char32_t code_point) {
  const auto byte = [](char32_t value) { return static_cast<char>(static_cast<uint8_t>(value)); };
  if (code_point < 0x80) return {byte(code_point)};
  if (code_point < 0x800) {
    return {byte(0xC0 | (code_point >> 6)), byte(0x80 | (code_point & 0x3F))};
  }
  if (code_point < 0x10000) {
    return {byte(0xE0 | (code_point >> 12)), byte(0x80 | ((code_point >> 6) & 0x3F)),
            byte(0x80 | (code_point & 0x3F))};
  }
  return {byte(0xF0 | (code_point >> 18)), byte(0x80 | ((code_point >> 12) & 0x3F)),
          byte(0x80 | ((code_point >> 6) & 0x3F)), byte(0x80 | (code_point & 0x3F))};
}

}  // namespace dsctl::engine::grammar
