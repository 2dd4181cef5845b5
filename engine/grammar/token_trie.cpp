#include "engine/grammar/token_trie.h"

#include <algorithm>
#include <string>

#include "engine/error.h"
#include "engine/tokenizer/tokenizer.h"

namespace dsctl::engine::grammar {
namespace {

constexpr size_t kMaxPieceBytes = 1024;

bool is_text(const Tokenizer& tokenizer, int32_t token) {
  if (tokenizer.is_eog(token)) return false;
  const TokenType type = tokenizer.type(token);
  return type == TokenType::kNormal || type == TokenType::kUserDefined || type == TokenType::kByte;
}

size_t common_prefix(std::string_view a, std::string_view b) {
  const auto end = std::mismatch(a.begin(), a.end(), b.begin(), b.end()).first;
  return static_cast<size_t>(end - a.begin());
}

}  // namespace

TokenTrie::TokenTrie(const Tokenizer& tokenizer)
    : pieces_(static_cast<size_t>(tokenizer.vocab_size())), eog_tokens_(tokenizer.eog_tokens()) {
  std::vector<int32_t> short_tokens;
  std::vector<int32_t> long_tokens;
  for (int32_t token = 0; token < tokenizer.vocab_size(); ++token) {
    if (tokenizer.type(token) == TokenType::kControl && !tokenizer.is_eog(token)) {
      control_tokens_.emplace(tokenizer.piece(token, SpecialTokens::kParse), token);
    }
    if (!is_text(tokenizer, token)) continue;
    const std::string_view piece = tokenizer.piece(token, SpecialTokens::kAsText);
    if (piece.empty() || piece.size() > kMaxPieceBytes) continue;
    pieces_[static_cast<size_t>(token)] = piece;
    max_piece_bytes_ = std::max(max_piece_bytes_, static_cast<int>(piece.size()));
    (piece.size() <= kMaxDepth ? short_tokens : long_tokens).push_back(token);
  }
  const auto by_piece = [this](int32_t a, int32_t b) {
    const int order = piece(a).compare(piece(b));
    return order < 0 || (order == 0 && a < b);
  };
  std::sort(short_tokens.begin(), short_tokens.end(), by_piece);
  std::sort(long_tokens.begin(), long_tokens.end(), by_piece);
  nodes_ = build(short_tokens);
  long_nodes_ = build(long_tokens);
}

std::vector<TokenTrie::Node> TokenTrie::build(std::span<const int32_t> sorted) {
  std::vector<Node> nodes;
  std::vector<uint32_t> path;  // nodes from the root to the last piece's end
  std::string_view last;
  const auto close_from = [&](size_t depth) {
    for (size_t i = depth; i < path.size(); ++i)
      nodes[path[i]].end = static_cast<uint32_t>(nodes.size());
    path.resize(depth);
  };
  for (const int32_t token : sorted) {
    const std::string_view text = piece(token);
    if (text != last) {
      const size_t shared = common_prefix(last, text);
      close_from(shared);
      for (size_t depth = shared; depth < text.size(); ++depth) {
        path.push_back(static_cast<uint32_t>(nodes.size()));
        nodes.push_back({.first_token = static_cast<int32_t>(tokens_.size()),
                         .depth = static_cast<uint16_t>(depth),
                         .byte = static_cast<uint8_t>(text[depth])});
      }
      last = text;
      nodes.back().first_token = static_cast<int32_t>(tokens_.size());
    }
    tokens_.push_back(token);
    ++nodes.back().n_tokens;
  }
  close_from(0);
  return nodes;
}

int32_t TokenTrie::control_token(const std::string& text) const {
  const auto found = control_tokens_.find(text);
  return found == control_tokens_.end() ? -1 : found->second;
}

}  // namespace dsctl::engine::grammar
