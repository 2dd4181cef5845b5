// Pre-tokenizers by PCRE2, for the lists without a scanner and as the reference of the scanners.
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "engine/error.h"
#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/unicode.h"

namespace dsctl::engine {

namespace {

// PCRE2's own \s also takes U+180E, which Unicode took out of White_Space.
constexpr std::string_view kWhiteSpaceClass =
    R"(\x{9}-\x{D}\x{20}\x{85}\x{A0}\x{1680}\x{2000}-\x{200A}\x{2028}\x{2029}\x{202F}\x{205F})"
    R"(\x{3000})";

/// Writes \s and \S out as classes.
std::string expand_white_space(std::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    if (c != '\\' || i + 1 == pattern.size()) {
      if (c == '[') in_class = true;
      if (c == ']') in_class = false;
      out += c;
      continue;
    }
    const char escaped = pattern[++i];
    if (escaped == 's' && in_class) {
      out += kWhiteSpaceClass;
    } else if (escaped == 's') {
      out.append("[").append(kWhiteSpaceClass).append("]");
    } else if (escaped == 'S' && !in_class) {
      out.append("[^").append(kWhiteSpaceClass).append("]");
    } else {
      out.append({'\\', escaped});
    }
  }
  return out;
}

std::string message_of(int code) {
  char buffer[256] = "";
  pcre2_get_error_message(code, reinterpret_cast<PCRE2_UCHAR*>(buffer), sizeof(buffer));
  return buffer;
}

struct FreeMatchData {
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
};
using MatchData = std::unique_ptr<pcre2_match_data, FreeMatchData>;

/// One compiled expression. Thread-safe: what a match writes to belongs to the caller.
class Regex {
 public:
  explicit Regex(std::string_view pattern) {
    const std::string expanded = expand_white_space(pattern);
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expanded.data()), expanded.size(),
                              PCRE2_UTF | PCRE2_UCP | PCRE2_NO_UTF_CHECK | PCRE2_DOLLAR_ENDONLY,
                              &error, &offset, nullptr));
    if (!code_) {
      throw Error("pre-tokenizer expression '" + expanded + "': " + message_of(error) +
                  " at offset " + std::to_string(offset));
    }
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without a JIT the interpreter serves
  }

  /// Splits `piece` (valid UTF-8) into matches and gaps; appends their ends, plus `base`.
  void split(std::string_view piece, uint32_t base, MatchData& data,
             std::vector<uint32_t>& ends) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(piece.data());
    size_t done = 0;
    while (done < piece.size()) {
      const int rc = pcre2_match(code_.get(), subject, piece.size(), done,
                                 PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY, data.get(), nullptr);
      if (rc == PCRE2_ERROR_NOMATCH) break;
      if (rc < 0) throw Error("pre-tokenizer expression: " + message_of(rc));
      const PCRE2_SIZE* match = pcre2_get_ovector_pointer(data.get());
      if (match[0] > done) ends.push_back(base + static_cast<uint32_t>(match[0]));
      ends.push_back(base + static_cast<uint32_t>(match[1]));
      done = match[1];
    }
    if (done < piece.size()) ends.push_back(base + static_cast<uint32_t>(piece.size()));
  }

 private:
  struct FreeCode {
    void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  };
  std::unique_ptr<pcre2_code, FreeCode> code_;
};

class RegexSplitter : public PreTokenizer {
 public:
  explicit RegexSplitter(const PreTokenizerSpec& spec) {
    for (const std::string_view pattern : spec.regexes)
      steps_.emplace_back(pattern);
  }

  void split(std::string_view text, std::vector<uint32_t>& piece_ends) const override {
    if (text.empty()) return;
    if (is_valid(text)) {
      split_valid(text, piece_ends);
      return;
    }
    // PCRE2 wants valid UTF-8: split a text with U+FFFD for every invalid byte, then walk both.
    std::vector<uint32_t> ends;
    split_valid(with_replacements(text), ends);
    const char* const end = text.data() + text.size();
    const char* p = text.data();
    uint32_t offset = 0;
    for (const uint32_t piece_end : ends) {
      while (offset < piece_end) {
        const CodePoint c = decode_utf8(p, end);
        p += c.n_bytes;
        offset += c.valid ? static_cast<uint32_t>(c.n_bytes) : 3;
      }
      piece_ends.push_back(static_cast<uint32_t>(p - text.data()));
    }
  }

 private:
  static bool is_valid(std::string_view text) {
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p < end;) {
      const CodePoint c = decode_utf8(p, end);
      if (!c.valid) return false;
      p += c.n_bytes;
    }
    return true;
  }

  static std::string with_replacements(std::string_view text) {
    std::string out;
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p < end;) {
      const CodePoint c = decode_utf8(p, end);
      append_utf8(c.value, out);
      p += c.n_bytes;
    }
    return out;
  }

  void split_valid(std::string_view text, std::vector<uint32_t>& piece_ends) const {
    MatchData data(pcre2_match_data_create(1, nullptr));
    if (!data) throw Error("pre-tokenizer: out of memory");
    std::vector<uint32_t> ends{static_cast<uint32_t>(text.size())};
    for (const Regex& step : steps_) {
      std::vector<uint32_t> next;
      next.reserve(ends.size());
      uint32_t start = 0;
      for (const uint32_t end : ends) {
        step.split(text.substr(start, end - start), start, data, next);
        start = end;
      }
      ends = std::move(next);
    }
    piece_ends.insert(piece_ends.end(), ends.begin(), ends.end());
  }

  std::vector<Regex> steps_;
};

}  // namespace

std::unique_ptr<PreTokenizer> make_regex_splitter(const PreTokenizerSpec& spec) {
  return std::make_unique<RegexSplitter>(spec);
}

}  // namespace dsctl::engine
