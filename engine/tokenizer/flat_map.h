// Two hash tables for the inner loops of the tokenizers: from bytes to a token, and from a pair of
// tokens to what it merges to. Built once, then read by any number of threads. std::unordered_map
// gave a third of the speed: a node is a cache miss more for every look-up.
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace dsctl::engine {

/// A hash of `bytes`. The tables below keep a load of at most one half.
inline uint64_t hash_bytes(std::string_view bytes) {
  constexpr uint64_t kPrime = 0x9E3779B97F4A7C15;
  uint64_t hash = bytes.size() * kPrime;
  const char* p = bytes.data();
  size_t left = bytes.size();
  const auto mix = [&hash](uint64_t word) {
    hash = (hash ^ word) * kPrime;
    hash ^= hash >> 32;
  };
  for (; left >= 8; p += 8, left -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    mix(word);
  }
  uint64_t word = 0;
  if (left > 0) std::memcpy(&word, p, left);
  mix(word);
  return hash;
}

/// Bytes to id. The keys are views: whoever owns them must outlive the table.
class BytesMap {
 public:
  /// Makes room for `n` keys.
  explicit BytesMap(size_t n = 0) : slots_(std::bit_ceil(2 * n + 2)) {}

  /// Sets `key`'s id (not negative), replacing the one it had.
  void set(std::string_view key, int32_t id) {
    if (2 * (n_keys_ + 1) > slots_.size()) grow();
    Slot& slot = slots_[find_slot(key, hash_bytes(key))];
    if (slot.id < 0) ++n_keys_;
    slot = {key.data(), static_cast<uint32_t>(key.size()), id};
  }

  /// The id of `key`, or -1.
  int32_t find(std::string_view key) const { return find(key, hash_bytes(key)); }
  int32_t find(std::string_view key, uint64_t hash) const {
    return slots_[find_slot(key, hash)].id;
  }

 private:
  struct Slot {
    const char* data = nullptr;
    uint32_t size = 0;
    int32_t id = -1;
  };

  size_t find_slot(std::string_view key, uint64_t hash) const {
    size_t i = hash & (slots_.size() - 1);
    while (slots_[i].id >= 0 && std::string_view(slots_[i].data, slots_[i].size) != key) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return i;
  }

  void grow() {
    std::vector<Slot> old(2 * slots_.size());
    old.swap(slots_);
    for (const Slot& slot : old) {
      const std::string_view key(slot.data, slot.size);
      if (slot.id >= 0) slots_[find_slot(key, hash_bytes(key))] = slot;
    }
  }

  std::vector<Slot> slots_;
  size_t n_keys_ = 0;
};

/// What a pair of symbols merges to.
struct Merge {
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  uint32_t rank = kNone;  // smaller merges first
  int32_t merged = -1;
};

/// Pair of symbols to Merge.
class MergeMap {
 public:
  explicit MergeMap(size_t n = 0) : slots_(std::bit_ceil(2 * n + 2)) {}

  /// Keeps the first merge that is given for a pair. At most as many as the constructor was told.
  void add(int32_t left, int32_t right, Merge merge) {
    Slot& slot = slots_[find_slot(key_of(left, right))];
    if (slot.merge.rank == Merge::kNone) slot = {key_of(left, right), merge};
  }

  Merge find(int32_t left, int32_t right) const {
    return slots_[find_slot(key_of(left, right))].merge;
  }

 private:
  struct Slot {
    uint64_t key = 0;
    Merge merge;
  };

  static uint64_t key_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }

  size_t find_slot(uint64_t key) const {
    uint64_t hash = key * 0x9E3779B97F4A7C15;
    size_t i = (hash ^ hash >> 32) & (slots_.size() - 1);
    while (slots_[i].merge.rank != Merge::kNone && slots_[i].key != key) {
      i = (i + 1) & (slots_.size() - 1);
    }
    return i;
  }

  std::vector<Slot> slots_;
};

}  // namespace dsctl::engine
