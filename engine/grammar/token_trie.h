// TokenTrie: a vocabulary's pieces by their bytes, so that a grammar looks at each shared beginning
// once.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::engine {
class Tokenizer;
}

namespace dsctl::engine::grammar {

/// Immutable. Control, unknown and unused tokens and empty pieces are not in it.
class TokenTrie {
 public:
  /// A byte of a piece. Nodes lie depth first: node i's subtree is [i, end).
  struct Node {
    uint32_t end = 0;
    int32_t first_token = 0;  // tokens()[first_token, + n_tokens): those whose piece ends here
    uint16_t n_tokens = 0;
    uint16_t depth = 0;  // of the byte in the piece, from 0
    uint8_t byte = 0;
  };
  /// The first byte `depth` at which a piece goes into long_tokens instead.
  static constexpr int kMaxDepth = 32;

  explicit TokenTrie(const Tokenizer& tokenizer);

  int vocab_size() const { return static_cast<int>(pieces_.size()); }
  std::span<const Node> nodes() const { return nodes_; }            // pieces of <= kMaxDepth bytes
  std::span<const Node> long_nodes() const { return long_nodes_; }  // longer ones
  int max_piece_bytes() const { return max_piece_bytes_; }
  std::span<const int32_t> tokens() const { return tokens_; }
  /// What `token` adds to the output; empty for tokens that are not in the trie.
  std::string_view piece(int32_t token) const { return pieces_[static_cast<size_t>(token)]; }
  /// The control token with this text, -1 when there is none.
  int32_t control_token(const std::string& text) const;
  std::span<const int32_t> eog_tokens() const { return eog_tokens_; }

 private:
  std::vector<Node> build(std::span<const int32_t> sorted);

  std::vector<std::string_view> pieces_;  // the tokenizer's
  std::map<std::string, int32_t> control_tokens_;
  std::vector<Node> nodes_;
  std::vector<Node> long_nodes_;
  std::vector<int32_t> tokens_;
  std::vector<int32_t> eog_tokens_;
  int max_piece_bytes_ = 0;
};

}  // namespace dsctl::engine::grammar
