// Hand-written scanners for the common lists of regexes. Each rule function stands for one
// alternative: it returns the end of its match at `p`, or `p` when it does not match. Alternatives
// are ordered: the first that matches wins, as in a backtracking regex.
#include <algorithm>
#include <string_view>

#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/unicode.h"

namespace dsctl::engine {

namespace {

constexpr ClassMask kLetterOrNumber = kLetter | kNumber;
constexpr ClassMask kWord = kWhiteSpace | kLetter | kNumber;  // what [^\s\p{L}\p{N}] excludes

/// The class of the code point at a place, and its length; at the end: class 0, length 0.
struct Class {
  ClassMask mask = 0;
  int n_bytes = 0;
  bool is(ClassMask set) const { return (mask & set) != 0; }
  bool at_end() const { return n_bytes == 0; }
};

/// A text that ends at `end`, whatever follows in memory: what the rules look at.
class Text {
 public:
  explicit Text(const char* text_end) : end_(text_end), classes_(UnicodeClasses::instance()) {}

  const char* end() const { return end_; }

  Class at(const char* p) const {
    if (p == end_) return {};
    const auto byte = static_cast<unsigned char>(*p);
    if (byte < 0x80) return {classes_.of_ascii(byte), 1};
    const CodePoint c = decode_utf8(p, end_);
    return {classes_.of(c.value), c.n_bytes};
  }

  bool has(const char* p, char wanted) const { return p != end_ && *p == wanted; }

  /// Skips code points that have a class of `set`.
  const char* skip(const char* p, ClassMask set) const {
    for (Class c = at(p); c.is(set); c = at(p))
      p += c.n_bytes;
    return p;
  }

  /// Skips code points that have no class of `set`.
  const char* skip_not(const char* p, ClassMask set) const {
    for (Class c = at(p); !c.at_end() && !c.is(set); c = at(p))
      p += c.n_bytes;
    return p;
  }

  /// Skips at most `n_max` numbers.
  const char* skip_numbers(const char* p, int n_max) const {
    for (Class c = at(p); n_max > 0 && c.is(kNumber); c = at(p), --n_max)
      p += c.n_bytes;
    return p;
  }

 private:
  const char* end_;
  const UnicodeClasses& classes_;
};

/// 's|'t|'re|'ve|'m|'ll|'d
const char* contraction(const Text& text, const char* p) {
  if (text.end() - p < 2 || p[0] != '\'') return p;
  const char first = p[1];
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
  if (text.end() - p < 3) return p;
  const char second = p[2];
  const bool two =
      ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
  return two ? p + 3 : p;
}

/// (?i:'s|'t|'re|'ve|'m|'ll|'d). U+017F (long s) is an s to a caseless Unicode regex.
const char* contraction_any_case(const Text& text, const char* p) {
  if (text.end() - p < 2 || p[0] != '\'') return p;
  const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
  const char first = lower(p[1]);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return p + 2;
  if (text.end() - p < 3) return p;
  if (p[1] == '\xC5' && p[2] == '\xBF') return p + 3;
  const char second = lower(p[2]);
  const bool two =
      ((first == 'r' || first == 'v') && second == 'e') || (first == 'l' && second == 'l');
  return two ? p + 3 : p;
}

/// \s+(?!\S)|\s+ : a run without its last character when something follows it.
const char* white_space(const Text& text, const char* p) {
  const char* last = p;
  const char* q = p;
  for (Class c = text.at(q); c.is(kWhiteSpace); c = text.at(q)) {
    last = q;
    q += c.n_bytes;
  }
  return q == text.end() || last == p ? q : last;
}

/// \s*[\r\n]+|\s+(?!\S)|\s+ : up to the last newline of the run, when it has one.
const char* lines_or_white_space(const Text& text, const char* p) {
  const char* after_newline = p;
  const char* last = p;
  const char* q = p;
  for (Class c = text.at(q); c.is(kWhiteSpace); c = text.at(q)) {
    last = q;
    q += c.n_bytes;
    if (c.is(kNewline)) after_newline = q;
  }
  if (after_newline != p) return after_newline;
  return q == text.end() || last == p ? q : last;
}

/// [^\r\n\p{L}\p{N}]?\p{L}+
const char* word_after_any(const Text& text, const char* p) {
  const Class first = text.at(p);
  if (first.is(kLetter)) return text.skip(p + first.n_bytes, kLetter);
  if (first.at_end() || first.is(kNumber | kNewline)) return p;
  const char* const word = p + first.n_bytes;
  const char* const end = text.skip(word, kLetter);
  return end == word ? p : end;
}

/// ` ?[^\s\p{L}\p{N}]+`
const char* symbols(const Text& text, const char* p) {
  const char* const start = text.has(p, ' ') ? p + 1 : p;
  const char* const end = text.skip_not(start, kWord);
  return end == start ? p : end;
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n]*`
const char* symbols_and_newlines(const Text& text, const char* p) {
  const char* const end = symbols(text, p);
  return end == p ? p : text.skip(end, kNewline);
}

/// ` ?[^\s\p{L}\p{N}]+[\r\n/]*`
const char* symbols_and_newlines_or_slashes(const Text& text, const char* p) {
  const char* end = symbols(text, p);
  if (end == p) return p;
  while (text.has(end, '/') || text.has(end, '\r') || text.has(end, '\n'))
    ++end;
  return end;
}

/// The pattern of GPT-2.
struct Gpt2Rules {
  static const char* match(const Text& text, const char* p) {
    if (const char* end = contraction(text, p); end != p) return end;
    const char* const start = text.has(p, ' ') ? p + 1 : p;
    const Class first = text.at(start);
    if (first.is(kLetter)) return text.skip(start + first.n_bytes, kLetter);
    if (first.is(kNumber)) return text.skip(start + first.n_bytes, kNumber);
    if (!first.at_end() && !first.is(kWhiteSpace)) {
      return text.skip_not(start + first.n_bytes, kWord);
    }
    return white_space(text, p);
  }
};

/// The pattern of Llama 3 (numbers by three) and of Qwen 2 (digit by digit).
template <int kMaxDigits>
struct Llama3Rules {
  static const char* match(const Text& text, const char* p) {
    if (const char* end = contraction_any_case(text, p); end != p) return end;
    if (const char* end = word_after_any(text, p); end != p) return end;
    if (const char* end = text.skip_numbers(p, kMaxDigits); end != p) return end;
    if (const char* end = symbols_and_newlines(text, p); end != p) return end;
    return lines_or_white_space(text, p);
  }
};

/// The third expression of DeepSeek-V3.
struct DeepseekV3Rules {
  static bool is_ascii_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }
  static bool is_ascii_punctuation(char c) {
    return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') ||
           (c >= '{' && c <= '~');
  }

  /// [!"#...~][A-Za-z]+
  static const char* identifier(const Text& text, const char* p) {
    if (!is_ascii_punctuation(*p)) return p;
    const char* q = p + 1;
    while (q != text.end() && is_ascii_letter(*q))
      ++q;
    return q == p + 1 ? p : q;
  }

  /// [^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+
  static const char* word(const Text& text, const char* p) {
    constexpr ClassMask kWordMask = kLetter | kMark;
    const Class first = text.at(p);
    if (first.is(kWordMask)) return text.skip(p + first.n_bytes, kWordMask);
    if (first.is(kNewline | kPunctuation | kSymbol)) return p;
    const char* const start = p + first.n_bytes;
    const char* const end = text.skip(start, kWordMask);
    return end == start ? p : end;
  }

  /// ` ?[\p{P}\p{S}]+[\r\n]*`
  static const char* punctuation(const Text& text, const char* p) {
    const char* const start = text.has(p, ' ') ? p + 1 : p;
    const char* const end = text.skip(start, kPunctuation | kSymbol);
    return end == start ? p : text.skip(end, kNewline);
  }

  static const char* match(const Text& text, const char* p) {
    if (const char* end = identifier(text, p); end != p) return end;
    if (const char* end = word(text, p); end != p) return end;
    if (const char* end = punctuation(text, p); end != p) return end;
    return lines_or_white_space(text, p);
  }
};

/// The patterns of GPT-4o (numbers by three, contractions) and of Tekken.
template <int kMaxDigits, bool kContractions>
struct CasedRules {
  static constexpr ClassMask kUpper = kLu | kLt | kLm | kLo | kMark;
  static constexpr ClassMask kLower = kLl | kLm | kLo | kMark;

  /// Upper*Lower+ , else Upper+Lower* : the end, or `p`. What is both upper and lower lets the
  /// first form give characters back: it then ends after the last such character.
  static const char* cased_word(const Text& text, const char* p) {
    const char* after_lower = p;
    const char* q = p;
    for (Class c = text.at(q); c.is(kUpper); c = text.at(q)) {
      q += c.n_bytes;
      if (c.is(kLower)) after_lower = q;
    }
    if (const char* end = text.skip(q, kLower); end != q) return end;
    return after_lower != p ? after_lower : q;
  }

  /// [^\r\n\p{L}\p{N}]? before a word. The form Upper*Lower+ is tried with and without that
  /// character before Upper+Lower* is tried with it, which matters when the character is a mark.
  static const char* word(const Text& text, const char* p) {
    const Class first = text.at(p);
    if (first.at_end() || first.is(kNumber | kNewline)) return p;
    if (first.is(kLetter)) return cased_word(text, p);
    const char* const start = p + first.n_bytes;
    const char* const end = cased_word(text, start);
    if (!first.is(kMark)) return end == start ? p : end;
    const bool only_upper = end != start && !ends_in_lower(text, start, end);
    return end == start || only_upper ? start : end;
  }

  static bool ends_in_lower(const Text& text, const char* p, const char* end) {
    Class last;
    for (; p != end; p += last.n_bytes)
      last = text.at(p);
    return last.is(kLower);
  }

  static const char* match(const Text& text, const char* p) {
    if (const char* end = word(text, p); end != p) {
      return kContractions ? contraction_any_case(text, end) : end;
    }
    if (const char* end = text.skip_numbers(p, kMaxDigits); end != p) return end;
    if (const char* end = symbols_and_newlines_or_slashes(text, p); end != p) return end;
    return lines_or_white_space(text, p);
  }
};

/// Appends the ends of the matches of `Rules` in [p, end), and of the gaps between them.
template <typename Rules>
void scan(const char* origin, const char* p, const char* end, std::vector<uint32_t>& piece_ends) {
  const Text text(end);
  const auto emit = [&](const char* at) {
    piece_ends.push_back(static_cast<uint32_t>(at - origin));
  };
  bool in_gap = false;
  while (p != end) {
    const char* const match_end = Rules::match(text, p);
    if (match_end == p) {
      in_gap = true;
      p += text.at(p).n_bytes;
      continue;
    }
    if (in_gap) emit(p);
    in_gap = false;
    emit(match_end);
    p = match_end;
  }
  if (in_gap) emit(end);
}

/// A list with one expression.
template <typename Rules>
class OneStepScanner : public PreTokenizer {
 public:
  void split(std::string_view text, std::vector<uint32_t>& piece_ends) const override {
    scan<Rules>(text.data(), text.data(), text.data() + text.size(), piece_ends);
  }
};

/// First \p{N}, digit by digit, then GPT-2's pattern between the digits.
class SingleDigitsScanner : public PreTokenizer {
 public:
  void split(std::string_view text, std::vector<uint32_t>& piece_ends) const override {
    const char* const origin = text.data();
    const Text all(origin + text.size());
    for (const char* p = origin; p != all.end();) {
      if (const char* end = all.skip_numbers(p, 1); end != p) {
        piece_ends.push_back(static_cast<uint32_t>(end - origin));
        p = end;
        continue;
      }
      const char* const gap_end = all.skip_not(p, kNumber);
      scan<Gpt2Rules>(origin, p, gap_end, piece_ends);
      p = gap_end;
    }
  }
};

/// Numbers by three, then runs of Chinese characters and kana; the third expression splits what is
/// between them and the runs too (there are symbols among the kana).
class DeepseekV3Scanner : public PreTokenizer {
 public:
  void split(std::string_view text, std::vector<uint32_t>& piece_ends) const override {
    const char* const origin = text.data();
    const Text all(origin + text.size());
    for (const char* p = origin; p != all.end();) {
      const char* end = all.skip_numbers(p, 3);
      if (end != p) {
        piece_ends.push_back(static_cast<uint32_t>(end - origin));
      } else {
        end = skip_cjk(p, all.end());
        if (end == p) end = skip_other(all, p);
        scan<DeepseekV3Rules>(origin, p, end, piece_ends);
      }
      p = end;
    }
  }

 private:
  static bool is_cjk(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FA5) || (c >= 0x3040 && c <= 0x30FF);
  }

  static const char* skip_cjk(const char* p, const char* end) {
    while (p != end && static_cast<unsigned char>(*p) >= 0xE3) {
      const CodePoint c = decode_utf8(p, end);
      if (!is_cjk(c.value)) break;
      p += c.n_bytes;
    }
    return p;
  }

  /// Up to the next number or CJK character.
  static const char* skip_other(const Text& all, const char* p) {
    for (Class c = all.at(p); !c.at_end() && !c.is(kNumber); c = all.at(p)) {
      if (c.n_bytes == 3 && skip_cjk(p, p + 3) != p) break;
      p += c.n_bytes;
    }
    return p;
  }
};

}  // namespace

std::unique_ptr<PreTokenizer> make_scanner(const PreTokenizerSpec& spec) {
  const auto same_as = [&spec](std::string_view name) {
    return std::ranges::equal(spec.regexes, find_pre_tokenizer(name)->regexes);
  };
  if (same_as("gpt-2")) return std::make_unique<OneStepScanner<Gpt2Rules>>();
  if (same_as("smollm")) return std::make_unique<SingleDigitsScanner>();
  if (same_as("llama-bpe")) return std::make_unique<OneStepScanner<Llama3Rules<3>>>();
  if (same_as("qwen2")) return std::make_unique<OneStepScanner<Llama3Rules<1>>>();
  if (same_as("deepseek-v3")) return std::make_unique<DeepseekV3Scanner>();
  if (same_as("gpt-4o")) return std::make_unique<OneStepScanner<CasedRules<3, true>>>();
  if (same_as("tekken")) return std::make_unique<OneStepScanner<CasedRules<1, false>>>();
  return nullptr;
}

std::unique_ptr<PreTokenizer> make_pre_tokenizer(const PreTokenizerSpec& spec) {
  auto scanner = make_scanner(spec);
  return scanner ? std::move(scanner) : make_regex_splitter(spec);
}

}  // namespace dsctl::engine
