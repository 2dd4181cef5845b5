#include "engine/tokenizer/tokenizer.h"

#include <algorithm>

#include "engine/error.h"
#include "engine/tokenizer/flat_map.h"
#include "engine/tokenizer/fragment_encoder.h"
#include "engine/tokenizer/pretokenize.h"
#include "engine/tokenizer/special_matcher.h"
#include "engine/tokenizer/unicode.h"
#include "engine/tokenizer/vocabulary.h"

namespace dsctl::engine {

namespace {

// More text than any context holds; offsets of 32 bits and the memory of merging stay in bounds.
constexpr size_t kMaxTextBytes = 32 << 20;

bool is_ascii_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

/// What a control token stands for is only shown when asked for.
bool is_hidden(TokenType type) {
  return type == TokenType::kControl || type == TokenType::kUnknown || type == TokenType::kUnused;
}

/// The bytes that token `id` stands for.
std::string piece_of(const Vocabulary& vocabulary, size_t id) {
  const std::string& text = vocabulary.tokens[id];
  const TokenType type = vocabulary.types[id];
  if (is_hidden(type) || type == TokenType::kUserDefined) return text;
  if (const int byte = byte_of_token(text); type == TokenType::kByte && byte >= 0) {
    return {static_cast<char>(byte)};
  }
  const bool is_spm = vocabulary.kind == VocabularyKind::kSentencePiece;
  std::string piece;
  const char* const end = text.data() + text.size();
  for (const char* p = text.data(); p < end;) {
    const CodePoint c = decode_utf8(p, end);
    const int byte = is_spm ? -1 : byte_of_bpe_code_point(c.value);
    if (is_spm && c.value == 0x2581) {
      piece += ' ';
    } else if (byte >= 0) {
      piece += static_cast<char>(byte);
    } else {
      piece.append(p, static_cast<size_t>(c.n_bytes));
    }
    p += c.n_bytes;
  }
  return piece;
}

class VocabularyTokenizer : public Tokenizer {
 public:
  explicit VocabularyTokenizer(Vocabulary vocabulary);

  std::vector<int32_t> encode(std::string_view text, AddSpecial add_special,
                              SpecialTokens special) const override;
  std::string_view piece(int32_t token, SpecialTokens special) const override;
  std::string decode(std::span<const int32_t> tokens, SpecialTokens special) const override;

  int vocab_size() const override { return vocabulary_.size(); }
  std::string_view text(int32_t token) const override {
    return is_token(token) ? vocabulary_.tokens[static_cast<size_t>(token)] : std::string_view();
  }
  TokenType type(int32_t token) const override {
    return is_token(token) ? vocabulary_.types[static_cast<size_t>(token)] : TokenType::kUndefined;
  }
  int32_t find(std::string_view text) const override { return text.empty() ? -1 : ids_.find(text); }

  int32_t bos() const override { return vocabulary_.bos; }
  int32_t eos() const override { return vocabulary_.eos; }
  bool adds_bos() const override { return vocabulary_.adds_bos; }
  bool adds_eos() const override { return vocabulary_.adds_eos; }
  int32_t eot() const override { return vocabulary_.eot; }
  int32_t eom() const override { return vocabulary_.eom; }
  FimTokens fim() const override { return vocabulary_.fim; }
  bool adds_space_prefix() const override { return vocabulary_.adds_space_prefix; }
  const std::vector<int32_t>& eog_tokens() const override { return vocabulary_.eog; }
  bool is_eog(int32_t token) const override {
    return std::ranges::binary_search(vocabulary_.eog, token);
  }
  std::string description() const override;

 private:
  bool is_token(int32_t token) const { return token >= 0 && token < vocab_size(); }
  bool strips(const std::vector<int32_t>& tokens, int32_t token) const {
    return !tokens.empty() && std::ranges::find(tokens, token) != tokens.end();
  }
  void make_pieces();
  void encode_fragment(std::string_view text, bool after_special, std::vector<int32_t>& out) const;

  Vocabulary vocabulary_;
  std::string piece_bytes_;               // of all tokens, one after the other
  std::vector<std::string_view> pieces_;  // (vocab_size) views into piece_bytes_
  BytesMap ids_;                          // by stored text
  SpecialMatcher user_defined_;           // always split from the text
  SpecialMatcher all_special_;            // split when special tokens are parsed
  std::unique_ptr<FragmentEncoder> encoder_;
};

VocabularyTokenizer::VocabularyTokenizer(Vocabulary vocabulary)
    : vocabulary_(std::move(vocabulary)), ids_(vocabulary_.tokens.size()) {
  make_pieces();
  for (int32_t id = 0; id < vocab_size(); ++id) {
    const std::string_view text = vocabulary_.tokens[static_cast<size_t>(id)];
    const TokenType type = vocabulary_.types[static_cast<size_t>(id)];
    if (!text.empty()) ids_.set(text, id);
    if (type == TokenType::kUserDefined) user_defined_.add(text, id);
    if (type == TokenType::kUserDefined || type == TokenType::kControl ||
        type == TokenType::kUnknown) {
      all_special_.add(text, id);
    }
  }
  encoder_ = vocabulary_.kind == VocabularyKind::kBytePairs
                 ? make_bpe_encoder(vocabulary_, pieces_)
                 : make_spm_encoder(vocabulary_, pieces_);
  vocabulary_.merges = {};  // the encoder has them in its own form
  vocabulary_.scores = {};
}

void VocabularyTokenizer::make_pieces() {
  std::vector<size_t> ends;
  ends.reserve(vocabulary_.tokens.size());
  for (size_t id = 0; id < vocabulary_.tokens.size(); ++id) {
    piece_bytes_ += piece_of(vocabulary_, id);
    ends.push_back(piece_bytes_.size());
  }
  pieces_.reserve(ends.size());
  size_t begin = 0;
  for (const size_t end : ends) {
    pieces_.push_back(std::string_view(piece_bytes_).substr(begin, end - begin));
    begin = end;
  }
}

std::vector<int32_t> VocabularyTokenizer::encode(std::string_view text, AddSpecial add_special,
                                                 SpecialTokens special) const {
  if (text.size() > kMaxTextBytes) {
    throw Error("text to tokenize: " + std::to_string(text.size()) + " bytes, expected at most " +
                std::to_string(kMaxTextBytes));
  }
  const SpecialMatcher& matcher = special == SpecialTokens::kParse ? all_special_ : user_defined_;
  const bool wants_bos =
      add_special == AddSpecial::kYes && vocabulary_.adds_bos && vocabulary_.bos >= 0;
  std::vector<int32_t> out;
  out.reserve(text.size() / 4 + 4);
  if (wants_bos) out.push_back(vocabulary_.bos);

  int32_t previous = -1;  // the special token before the fragment
  bool after_special = true;
  for (size_t at = 0; at < text.size();) {
    SpecialMatcher::Match match = matcher.find(text, at);
    const bool found = match.id >= 0;
    std::string_view fragment = text.substr(at, (found ? match.begin : text.size()) - at);
    if (strips(vocabulary_.strips_right, previous)) {
      while (!fragment.empty() && is_ascii_space(fragment.front()))
        fragment.remove_prefix(1);
    }
    if (found && strips(vocabulary_.strips_left, match.id)) {
      while (!fragment.empty() && is_ascii_space(fragment.back()))
        fragment.remove_suffix(1);
    }
    if (!fragment.empty()) encode_fragment(fragment, after_special, out);
    if (!found) break;
    out.push_back(match.id);
    previous = match.id;
    after_special = true;
    at = match.end;
  }
  // A prompt that a template has begun with BOS does not get a second one.
  if (wants_bos && out.size() > 1 && out[1] == vocabulary_.bos) out.erase(out.begin());
  if (add_special == AddSpecial::kYes && vocabulary_.adds_eos && vocabulary_.eos >= 0) {
    out.push_back(vocabulary_.eos);
  }
  return out;
}

void VocabularyTokenizer::encode_fragment(std::string_view text, bool after_special,
                                          std::vector<int32_t>& out) const {
  constexpr std::string_view kSpaceMark = "▁";  // U+2581
  const bool adds_space = vocabulary_.adds_space_prefix && after_special;
  const bool is_spm = vocabulary_.kind == VocabularyKind::kSentencePiece;
  if (!adds_space && (!is_spm || text.find(kSpaceMark) == text.npos)) {
    encoder_->encode(text, out);
    return;
  }
  // To SentencePiece the space and U+2581 are one character: the encoder takes the space.
  std::string prepared(adds_space ? " " : "");
  size_t at = 0;
  for (size_t next = text.find(kSpaceMark); next != text.npos; next = text.find(kSpaceMark, at)) {
    prepared.append(text.substr(at, next - at)).append(" ");
    at = next + kSpaceMark.size();
  }
  prepared.append(text.substr(at));
  encoder_->encode(prepared, out);
}

std::string_view VocabularyTokenizer::piece(int32_t token, SpecialTokens special) const {
  if (!is_token(token)) return {};
  if (special == SpecialTokens::kAsText && is_hidden(type(token))) return {};
  return pieces_[static_cast<size_t>(token)];
}

std::string VocabularyTokenizer::decode(std::span<const int32_t> tokens,
                                        SpecialTokens special) const {
  std::string bytes;
  bool after_special = true;
  for (const int32_t token : tokens) {
    std::string_view bytes_of_token = piece(token, special);
    if (after_special && vocabulary_.adds_space_prefix && bytes_of_token.starts_with(' ')) {
      bytes_of_token.remove_prefix(1);
    }
    bytes += bytes_of_token;
    after_special = begins_fragment_after(token);
  }
  return replace_invalid_utf8(bytes);
}

std::string VocabularyTokenizer::description() const {
  if (vocabulary_.kind == VocabularyKind::kSentencePiece) return "llama";
  return "gpt2 (" + (vocabulary_.pre.empty() ? "default" : vocabulary_.pre) + ")";
}

}  // namespace

bool Tokenizer::begins_fragment_after(int32_t token) const {
  const TokenType t = type(token);
  return t == TokenType::kControl || t == TokenType::kUserDefined || t == TokenType::kUnknown;
}

std::unique_ptr<Tokenizer> make_tokenizer(Vocabulary vocabulary) {
  check_vocabulary(vocabulary);
  return std::make_unique<VocabularyTokenizer>(std::move(vocabulary));
}

std::unique_ptr<Tokenizer> Tokenizer::from_gguf(const gguf::GgufFile& file) {
  return make_tokenizer(read_vocabulary(file));
}

}  // namespace dsctl::engine
