// SentencePiece BPE: merge code points by the score of what they make, then bytes for what is left.
#include <algorithm>
#include <array>
#include <bit>
#include <deque>

#include "engine/tokenizer/fragment_encoder.h"
#include "engine/tokenizer/merge.h"
#include "engine/tokenizer/unicode.h"

namespace dsctl::engine {

namespace {

constexpr std::string_view kSpaceMark = "▁";  // U+2581

std::string with_spaces(std::string_view text) {
  std::string out;
  size_t at = 0;
  for (size_t next = text.find(kSpaceMark); next != text.npos; next = text.find(kSpaceMark, at)) {
    out.append(text.substr(at, next - at)).append(" ");
    at = next + kSpaceMark.size();
  }
  return out.append(text.substr(at));
}

/// Pairs of characters that stand side by side in some token. Between two that do not, nothing can
/// merge, so a text falls into short pieces there without changing its tokens. A filter of hashes:
/// a false "may join" only makes a piece longer.
class JoinFilter {
 public:
  explicit JoinFilter(size_t n_pairs)
      : bits_(std::clamp<size_t>(std::bit_ceil(8 * n_pairs + 1), 1 << 12, 1 << 23) / 64) {}

  void add(uint32_t left, uint32_t right) {
    const size_t bit = bit_of(left, right);
    bits_[bit / 64] |= uint64_t{1} << bit % 64;
  }

  bool may_join(uint32_t left, uint32_t right) const {
    const size_t bit = bit_of(left, right);
    return (bits_[bit / 64] >> bit % 64 & 1) != 0;
  }

  /// What `add` and `may_join` want: an invalid byte is a character of its own.
  static uint32_t character(const char* p, const CodePoint& c) {
    return c.valid ? c.value : 0x110000 + static_cast<unsigned char>(*p);
  }

 private:
  size_t bit_of(uint32_t left, uint32_t right) const {
    const uint64_t hash = (uint64_t{left} << 32 | right) * 0x9E3779B97F4A7C15;
    return (hash >> 32) & (64 * bits_.size() - 1);
  }

  std::vector<uint64_t> bits_;
};

class SpmRules {
 public:
  SpmRules(const Vocabulary& vocabulary, const std::vector<std::string_view>& pieces)
      : tokens_(pieces.size()), unknown_(vocabulary.unknown) {
    byte_tokens_.fill(-1);
    size_t n_characters = 0;
    for (int32_t id = 0; id < vocabulary.size(); ++id) {
      const auto i = static_cast<size_t>(id);
      const std::string& text = vocabulary.tokens[i];
      const TokenType type = vocabulary.types[i];
      if (const int byte = byte_of_token(text); byte >= 0 && type != TokenType::kControl) {
        byte_tokens_[static_cast<size_t>(byte)] = id;
      }
      // As in SentencePiece, text never merges into control, unknown or byte tokens. A token with a
      // plain space is out of reach: in text a space is U+2581.
      const bool is_out_of_reach = type == TokenType::kControl || type == TokenType::kUnknown ||
                                   type == TokenType::kByte || text.empty() ||
                                   text.find(' ') != text.npos;
      if (is_out_of_reach) continue;
      std::string bytes = with_spaces(text);
      n_characters += bytes.size();
      max_token_bytes_ = std::max(max_token_bytes_, bytes.size());
      tokens_.set(bytes == pieces[i] ? pieces[i] : kept_.emplace_back(std::move(bytes)), id);
      reachable_.push_back(id);
    }
    rank_by_score(vocabulary.scores);
    filter_ = JoinFilter(n_characters);
    for (const int32_t id : reachable_) {
      add_joins(with_spaces(vocabulary.tokens[static_cast<size_t>(id)]));
    }
    reachable_ = {};
  }

  const BytesMap& tokens() const { return tokens_; }
  size_t max_token_bytes() const { return max_token_bytes_; }
  const JoinFilter& filter() const { return filter_; }

  void start(std::string_view piece, std::vector<Symbol>& symbols) const {
    const char* const end = piece.data() + piece.size();
    for (const char* p = piece.data(); p < end;) {
      const auto n_bytes = static_cast<uint32_t>(decode_utf8(p, end).n_bytes);
      symbols.push_back({static_cast<uint32_t>(p - piece.data()), n_bytes, kNotLookedUp});
      p += n_bytes;
    }
    if (symbols.size() == 1) symbols[0].id = tokens_.find(piece);
  }

  Merge find(std::string_view piece, const Symbol& left, const Symbol& right) const {
    const size_t n_bytes = size_t{left.n_bytes} + right.n_bytes;
    if (n_bytes > max_token_bytes_) return {};
    const int32_t id = tokens_.find(piece.substr(left.begin, n_bytes));
    return id < 0 ? Merge{} : Merge{ranks_[static_cast<size_t>(id)], id};
  }

  void emit(std::string_view piece, const Symbol& symbol, std::vector<int32_t>& out) const {
    const std::string_view text = piece.substr(symbol.begin, symbol.n_bytes);
    const int32_t id = symbol.id == kNotLookedUp ? tokens_.find(text) : symbol.id;
    if (id >= 0) {
      out.push_back(id);
      return;
    }
    for (const char c : text == " " ? kSpaceMark : text) {
      const int32_t byte_token = byte_tokens_[static_cast<unsigned char>(c)];
      const int32_t token = byte_token >= 0 ? byte_token : unknown_;
      if (token >= 0) out.push_back(token);
    }
  }

 private:
  static constexpr int32_t kNotLookedUp = -2;

  /// ranks_: 0 for the highest score, equal for equal scores.
  void rank_by_score(const std::vector<float>& scores) {
    std::vector<float> sorted(scores);
    std::ranges::sort(sorted, std::greater());
    sorted.erase(std::unique(sorted.begin(), sorted.end()), sorted.end());
    ranks_.reserve(scores.size());
    for (const float score : scores) {
      const auto it = std::ranges::lower_bound(sorted, score, std::greater());
      ranks_.push_back(static_cast<uint32_t>(it - sorted.begin()));
    }
  }

  void add_joins(std::string_view text) {
    const char* const end = text.data() + text.size();
    uint32_t previous = 0;
    for (const char* p = text.data(); p < end;) {
      const CodePoint c = decode_utf8(p, end);
      const uint32_t character = JoinFilter::character(p, c);
      if (p != text.data()) filter_.add(previous, character);
      previous = character;
      p += c.n_bytes;
    }
  }

  size_t max_token_bytes_ = 1;
  std::deque<std::string> kept_;  // keys that no piece owns
  BytesMap tokens_;
  std::vector<uint32_t> ranks_;     // (vocab_size)
  std::vector<int32_t> reachable_;  // tokens that text can give, while building
  JoinFilter filter_{0};
  std::array<int32_t, 256> byte_tokens_{};
  int32_t unknown_;
};

class SpmEncoder : public FragmentEncoder {
 public:
  SpmEncoder(SpmRules rules, int vocab_size) : pieces_(std::move(rules), vocab_size, false) {}

  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    const JoinFilter& filter = pieces_.rules().filter();
    PieceCache cache(text.size());
    MergeScratch scratch;
    const char* const end = text.data() + text.size();
    const char* begin = text.data();
    uint32_t previous = 0;
    for (const char* p = begin; p < end;) {
      const CodePoint c = decode_utf8(p, end);
      const uint32_t character = JoinFilter::character(p, c);
      if (p != begin && !filter.may_join(previous, character)) {
        pieces_.encode({begin, p}, cache, scratch, out);
        begin = p;
      }
      previous = character;
      p += c.n_bytes;
    }
    if (begin != end) pieces_.encode({begin, end}, cache, scratch, out);
  }

 private:
  PieceEncoder<SpmRules> pieces_;
};

}  // namespace

int byte_of_token(std::string_view text) {
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  int byte = 0;
  for (const char c : text.substr(3, 2)) {
    const bool is_digit = c >= '0' && c <= '9';
    const bool is_letter = (c >= 'A' && c <= 'F') || (c >= 'a' && c <= 'f');
    if (!is_digit && !is_letter) return -1;
    byte = byte * 16 + (is_digit ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  return byte;
}

std::unique_ptr<FragmentEncoder> make_spm_encoder(const Vocabulary& vocabulary,
                                                  const std::vector<std::string_view>& pieces) {
  return std::make_unique<SpmEncoder>(SpmRules(vocabulary, pieces), vocabulary.size());
}

}  // namespace dsctl::engine
