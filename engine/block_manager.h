// BlockManager: which KV block belongs to whom. Pure host code over integers: it never touches the
// KV memory. Full blocks are remembered by their content, so that a later sequence with the same
// beginning shares them instead of computing them again.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <unordered_map>
#include <vector>

namespace dsctl::engine {

/// A sequence's KV blocks. Filled by BlockManager only.
struct BlockTable {
  std::vector<int32_t> block_ids;  // in order of position, block_size tokens each
  // The leading full blocks whose content is in the prefix cache (maybe as another sequence's
  // block), and the content of the last of them; 0: none.
  int n_known = 0;
  uint64_t last_content = 0;
};

enum class PrefixCaching { kOff, kOn };

/// Whether a sequence may begin with blocks that somebody else has computed.
enum class PrefixUse { kReuse, kCompute };

/// Every block is either used (by one or more tables) or free; a free block may still hold content
/// that can be found again until the block is needed: the one unused for longest goes first. A
/// content is one block's tokens after one preceding content. It is found by hash, but taken only
/// when its tokens and its predecessor are equal.
class BlockManager {
 public:
  using Hash = uint64_t (*)(uint64_t previous_content, std::span<const int32_t> tokens);

  /// `hash` is a parameter for tests, which make it collide.
  BlockManager(int n_blocks, int block_size, PrefixCaching caching, Hash hash = &hash_tokens);

  int n_blocks() const { return static_cast<int>(blocks_.size()); }
  int block_size() const { return block_size_; }
  int n_free() const { return n_free_; }
  int n_used() const { return n_used_; }
  int n_blocks_for(int n_tokens) const { return (n_tokens + block_size_ - 1) / block_size_; }

  /// Fills an empty `table` for all of `tokens` (at least one) and returns how many leading tokens
  /// are in the cache already: whole blocks, and never the last token, whose logits are wanted.
  /// Nothing, and no change, when that would leave fewer than `n_reserved` blocks free.
  std::optional<int> allocate(std::span<const int32_t> tokens, int n_reserved, BlockTable& table,
                              PrefixUse prefix_use = PrefixUse::kReuse);

  /// Adds blocks to `table` until it holds `n_tokens`; false, and no change, when there are too
  /// few.
  bool grow(BlockTable& table, int n_tokens);

  /// Tells that the first `n_computed` of `tokens` are in the KV memory: their full blocks can be
  /// found from now on.
  void commit(std::span<const int32_t> tokens, int n_computed, BlockTable& table);

  /// Gives all blocks back and empties `table`.
  void release(BlockTable& table);

  /// Whether the books balance: every block in exactly one state, lists, counts and the index of
  /// contents in agreement. O(blocks); for assertions and tests.
  bool is_consistent() const;

  static uint64_t hash_tokens(uint64_t previous_content, std::span<const int32_t> tokens);

 private:
  static constexpr int32_t kNone = -1;

  struct Block {
    int n_users = 0;
    uint64_t content = 0;   // 0: nothing that could be found
    uint64_t previous = 0;  // the content before it
    uint64_t hash = 0;
    // Neighbours in the list of free blocks with content, by time of release.
    int32_t older = kNone;
    int32_t newer = kNone;
  };

  Block& block(int32_t id) { return blocks_[static_cast<size_t>(id)]; }
  const Block& block(int32_t id) const { return blocks_[static_cast<size_t>(id)]; }
  std::span<const int32_t> block_tokens(int32_t id) const;
  /// The block with these tokens after `previous`, or kNone.
  int32_t find(uint64_t previous, std::span<const int32_t> tokens) const;
  int32_t take_free();
  void use(int32_t id);
  void unlink(int32_t id);
  void forget(int32_t id);

  int block_size_;
  PrefixCaching caching_;
  Hash hash_;
  std::vector<Block> blocks_;
  std::vector<int32_t> tokens_;  // (n_blocks, block_size) of the blocks with content
  std::vector<int32_t> empty_;   // free blocks without content, the next one last
  int32_t oldest_ = kNone;       // the list of free blocks with content
  int32_t newest_ = kNone;
  std::unordered_multimap<uint64_t, int32_t> block_by_hash_;
  uint64_t last_content_ = 0;
  int n_free_ = 0;
  int n_used_ = 0;
};

}  // namespace dsctl::engine
