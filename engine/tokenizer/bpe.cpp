// Byte-level BPE: pre-tokenise, then merge bytes by the rank of the pair.
#include <array>
#include <deque>
#include <optional>

#include "engine/tokenizer/fragment_encoder.h"
#include "engine/tokenizer/merge.h"
#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/unicode.h"

namespace dsctl::engine {

namespace {

/// GPT-2's alphabet: printable Latin-1 stands for itself, the other 68 bytes follow from U+0100.
struct Alphabet {
  std::array<int, 324> bytes{};  // by code point; -1: not of the alphabet

  constexpr Alphabet() {
    for (int& byte : bytes)
      byte = -1;
    uint32_t next = 256;
    for (int byte = 0; byte < 256; ++byte) {
      const bool is_printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte != 173);
      const uint32_t code_point = is_printable ? static_cast<uint32_t>(byte) : next++;
      bytes[code_point] = byte;
    }
  }
};

constexpr Alphabet kAlphabet;

/// The bytes that `text` stands for; nothing when a character is not of the alphabet, so that no
/// text can give it.
std::optional<std::string> bytes_of(std::string_view text) {
  std::string bytes;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const CodePoint c = decode_utf8(p, end);
    const int byte = byte_of_bpe_code_point(c.value);
    if (byte < 0) return {};
    bytes.push_back(static_cast<char>(byte));
    p += c.n_bytes;
  }
  return bytes;
}

/// Plain text never becomes a control token, whatever merges.
bool is_plain(TokenType type) {
  return type != TokenType::kControl && type != TokenType::kUnknown;
}

/// Symbols are tokens, or, from vocab_size on, texts that only occur inside merges.
class BpeRules {
 public:
  BpeRules(const Vocabulary& vocabulary, const std::vector<std::string_view>& pieces)
      : vocab_size_(vocabulary.size()),
        next_symbol_(vocab_size_),
        tokens_(pieces.size()),
        merges_(vocabulary.merges.size()) {
    for (int32_t id = 0; id < vocab_size_; ++id) {
      const auto i = static_cast<size_t>(id);
      if (!is_plain(vocabulary.types[i]) || vocabulary.tokens[i].empty()) continue;
      const auto bytes = bytes_of(vocabulary.tokens[i]);
      if (!bytes) continue;
      tokens_.set(*bytes == pieces[i] ? pieces[i] : keep(*bytes), id);
      max_token_bytes_ = std::max(max_token_bytes_, bytes->size());
    }
    symbols_ = tokens_;
    for (int byte = 0; byte < 256; ++byte) {
      byte_symbols_[static_cast<size_t>(byte)] = symbol_of(std::string(1, static_cast<char>(byte)));
    }
    for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
      add_merge(vocabulary.merges[rank], static_cast<uint32_t>(rank));
    }
    symbols_ = BytesMap();
  }

  const BytesMap& tokens() const { return tokens_; }
  size_t max_token_bytes() const { return max_token_bytes_; }

  void start(std::string_view piece, std::vector<Symbol>& symbols) const {
    symbols.resize(piece.size());
    for (uint32_t i = 0; i < piece.size(); ++i) {
      symbols[i] = {i, 1, byte_symbols_[static_cast<unsigned char>(piece[i])]};
    }
  }

  Merge find(std::string_view, const Symbol& left, const Symbol& right) const {
    return merges_.find(left.id, right.id);
  }

  void emit(std::string_view piece, const Symbol& symbol, std::vector<int32_t>& out) const {
    if (symbol.id < vocab_size_) {
      out.push_back(symbol.id);
      return;
    }
    for (uint32_t i = 0; i < symbol.n_bytes; ++i) {
      const int32_t id = byte_symbols_[static_cast<unsigned char>(piece[symbol.begin + i])];
      if (id < vocab_size_) out.push_back(id);
    }
  }

 private:
  std::string_view keep(std::string bytes) { return kept_.emplace_back(std::move(bytes)); }

  int32_t symbol_of(std::string_view bytes) {
    int32_t id = symbols_.find(bytes);
    if (id < 0) {
      id = next_symbol_++;
      symbols_.set(keep(std::string(bytes)), id);
    }
    return id;
  }

  void add_merge(std::string_view merge, uint32_t rank) {
    const size_t space = merge.find(' ', 1);
    const auto left = bytes_of(merge.substr(0, space));
    const auto right = bytes_of(merge.substr(space + 1));
    if (!left || !right) return;
    const int32_t merged = symbol_of(*left + *right);
    merges_.add(symbol_of(*left), symbol_of(*right), {rank, merged});
  }

  int32_t vocab_size_;
  int32_t next_symbol_;
  size_t max_token_bytes_ = 1;
  std::deque<std::string> kept_;  // keys that no piece owns
  BytesMap tokens_;
  BytesMap symbols_;  // tokens_ and more, while building
  MergeMap merges_;
  std::array<int32_t, 256> byte_symbols_{};
};

class BpeEncoder : public FragmentEncoder {
 public:
  BpeEncoder(const PreTokenizerSpec& spec, BpeRules rules, int vocab_size)
      : pre_tokenizer_(make_pre_tokenizer(spec)),
        pieces_(std::move(rules), vocab_size, spec.ignore_merges) {}

  void encode(std::string_view text, std::vector<int32_t>& out) const override {
    std::vector<uint32_t> ends;
    ends.reserve(text.size() / 4 + 1);
    pre_tokenizer_->split(text, ends);
    PieceCache cache(text.size());
    MergeScratch scratch;
    uint32_t begin = 0;
    for (const uint32_t end : ends) {
      pieces_.encode(text.substr(begin, end - begin), cache, scratch, out);
      begin = end;
    }
  }

 private:
  std::unique_ptr<PreTokenizer> pre_tokenizer_;
  PieceEncoder<BpeRules> pieces_;
};

}  // namespace

int byte_of_bpe_code_point(uint32_t code_point) {
  return code_point < kAlphabet.bytes.size() ? kAlphabet.bytes[code_point] : -1;
}

std::unique_ptr<FragmentEncoder> make_bpe_encoder(const Vocabulary& vocabulary,
                                                  const std::vector<std::string_view>& pieces) {
  return std::make_unique<BpeEncoder>(*find_pre_tokenizer(vocabulary.pre),
                                      BpeRules(vocabulary, pieces), vocabulary.size());
}

}  // namespace dsctl::engine
