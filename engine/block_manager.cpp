#include "engine/block_manager.h"

#include <algorithm>
#include <cassert>

namespace dsctl::engine {

BlockManager::BlockManager(int n_blocks, int block_size, PrefixCaching caching, Hash hash)
    : block_size_(block_size),
      caching_(caching),
      hash_(hash),
      blocks_(static_cast<size_t>(n_blocks)),
      n_free_(n_blocks) {
  assert(n_blocks > 0 && block_size > 0);
  if (caching == PrefixCaching::kOn) {
    tokens_.resize(static_cast<size_t>(n_blocks) * static_cast<size_t>(block_size));
  }
  empty_.reserve(blocks_.size());
  for (int32_t id = n_blocks - 1; id >= 0; --id)
    empty_.push_back(id);
}

uint64_t BlockManager::hash_tokens(uint64_t previous_content, std::span<const int32_t> tokens) {
  // SplitMix64's finaliser after each token.
  uint64_t hash = previous_content;
  for (const int32_t token : tokens) {
    hash += 0x9E3779B97F4A7C15 + static_cast<uint32_t>(token);
    hash = (hash ^ (hash >> 30)) * 0xBF58476D1CE4E5B9;
    hash = (hash ^ (hash >> 27)) * 0x94D049BB133111EB;
    hash ^= hash >> 31;
  }
  return hash;
}

std::span<const int32_t> BlockManager::block_tokens(int32_t id) const {
  const auto size = static_cast<size_t>(block_size_);
  return std::span(tokens_).subspan(static_cast<size_t>(id) * size, size);
}

int32_t BlockManager::find(uint64_t previous, std::span<const int32_t> tokens) const {
  const auto [begin, end] = block_by_hash_.equal_range(hash_(previous, tokens));
  for (auto entry = begin; entry != end; ++entry) {
    const int32_t id = entry->second;
    if (block(id).previous == previous && std::ranges::equal(block_tokens(id), tokens)) return id;
  }
  return kNone;
}

std::optional<int> BlockManager::allocate(std::span<const int32_t> tokens, int n_reserved,
                                          BlockTable& table, PrefixUse prefix_use) {
  assert(table.block_ids.empty() && !tokens.empty());
  const auto size = static_cast<size_t>(block_size_);
  const int n_total = n_blocks_for(static_cast<int>(tokens.size()));
  const size_t n_sharable = caching_ == PrefixCaching::kOn && prefix_use == PrefixUse::kReuse
                                ? (tokens.size() - 1) / size
                                : 0;
  int n_revived = 0;  // found among the free blocks
  for (size_t i = 0; i < n_sharable; ++i) {
    const int32_t id = find(table.last_content, tokens.subspan(i * size, size));
    if (id == kNone) break;
    table.block_ids.push_back(id);
    table.last_content = block(id).content;
    n_revived += block(id).n_users == 0 ? 1 : 0;
  }
  const auto n_found = static_cast<int>(table.block_ids.size());
  if (n_free_ - (n_total - n_found + n_revived) < n_reserved) {
    table = BlockTable();
    return std::nullopt;
  }
  for (const int32_t id : table.block_ids)
    use(id);
  table.n_known = n_found;
  const bool grown = grow(table, static_cast<int>(tokens.size()));
  assert(grown);
  static_cast<void>(grown);
  return n_found * block_size_;
}

bool BlockManager::grow(BlockTable& table, int n_tokens) {
  const int n_missing = n_blocks_for(n_tokens) - static_cast<int>(table.block_ids.size());
  if (n_missing > n_free_) return false;
  for (int i = 0; i < n_missing; ++i)
    table.block_ids.push_back(take_free());
  return true;
}

void BlockManager::commit(std::span<const int32_t> tokens, int n_computed, BlockTable& table) {
  if (caching_ == PrefixCaching::kOff) return;
  const auto size = static_cast<size_t>(block_size_);
  for (; (table.n_known + 1) * block_size_ <= n_computed; ++table.n_known) {
    const auto content = tokens.subspan(static_cast<size_t>(table.n_known) * size, size);
    int32_t id = find(table.last_content, content);
    if (id == kNone) {
      id = table.block_ids[static_cast<size_t>(table.n_known)];
      Block& added = block(id);
      assert(added.content == 0);
      added.content = ++last_content_;
      added.previous = table.last_content;
      added.hash = hash_(table.last_content, content);
      std::ranges::copy(content, tokens_.begin() + static_cast<ptrdiff_t>(id) * block_size_);
      block_by_hash_.emplace(added.hash, id);
    }
    // Two sequences may compute the same content side by side. The first one's is the one that is
    // found; what follows in the second is filed behind it.
    table.last_content = block(id).content;
  }
}

void BlockManager::release(BlockTable& table) {
  // From the end, so that a block is never older in the list of free ones than what it follows:
  // a chain is forgotten from its end.
  for (auto id = table.block_ids.rbegin(); id != table.block_ids.rend(); ++id) {
    Block& released = block(*id);
    assert(released.n_users > 0);
    if (--released.n_users > 0) continue;
    --n_used_;
    ++n_free_;
    if (released.content == 0) {
      empty_.push_back(*id);
      continue;
    }
    released.older = newest_;
    if (newest_ != kNone) block(newest_).newer = *id;
    newest_ = *id;
    if (oldest_ == kNone) oldest_ = *id;
  }
  table = BlockTable();
}

/// A free block without content, for one user.
int32_t BlockManager::take_free() {
  assert(n_free_ > 0);
  int32_t id = kNone;
  if (!empty_.empty()) {
    id = empty_.back();
    empty_.pop_back();
  } else {
    id = oldest_;
    unlink(id);
    forget(id);
  }
  block(id).n_users = 1;
  --n_free_;
  ++n_used_;
  return id;
}

/// One more user of a block with content.
void BlockManager::use(int32_t id) {
  if (block(id).n_users++ > 0) return;
  unlink(id);
  --n_free_;
  ++n_used_;
}

void BlockManager::unlink(int32_t id) {
  Block& gone = block(id);
  (gone.older == kNone ? oldest_ : block(gone.older).newer) = gone.newer;
  (gone.newer == kNone ? newest_ : block(gone.newer).older) = gone.older;
  gone.older = gone.newer = kNone;
}

void BlockManager::forget(int32_t id) {
  auto [entry, end] = block_by_hash_.equal_range(block(id).hash);
  while (entry != end && entry->second != id)
    ++entry;
  assert(entry != end);
  block_by_hash_.erase(entry);
  block(id).content = 0;
}

bool BlockManager::is_consistent() const {
  std::vector<int> n_seen(blocks_.size());  // in the two lists of free blocks
  for (const int32_t id : empty_) {
    if (block(id).content != 0) return false;
    ++n_seen[static_cast<size_t>(id)];
  }
  int32_t older = kNone;
  for (int32_t id = oldest_; id != kNone; older = id, id = block(id).newer) {
    if (block(id).older != older || block(id).content == 0) return false;
    if (++n_seen[static_cast<size_t>(id)] > 1) return false;
  }
  if (older != newest_) return false;
  int n_used = 0;
  size_t n_with_content = 0;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    if (blocks_[i].n_users < 0 || n_seen[i] != (blocks_[i].n_users == 0 ? 1 : 0)) return false;
    n_used += blocks_[i].n_users > 0 ? 1 : 0;
    n_with_content += blocks_[i].content != 0 ? 1 : 0;
  }
  for (const auto& [hash, id] : block_by_hash_) {
    if (block(id).content == 0 || block(id).hash != hash) return false;
    if (hash_(block(id).previous, block_tokens(id)) != hash) return false;
  }
  return n_used == n_used_ && n_free_ + n_used_ == n_blocks() &&
         block_by_hash_.size() == n_with_content;
}

}  // namespace dsctl::engine
