// Merging symbols, the step that byte-level BPE and SentencePiece have in common: again and again
// the adjacent pair that merges first, until no pair merges. And around it what makes it fast:
// whole tokens and repeated pieces are not merged at all.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "engine/tokenizer/flat_map.h"

namespace dsctl::engine {

/// A stretch of the piece that is being merged.
struct Symbol {
  uint32_t begin = 0;    // offset in the piece
  uint32_t n_bytes = 0;  // 0: consumed by its left neighbour
  int32_t id = -1;       // its token, or a number of the rules' own
};

/// The memory that one encode call uses for all its pieces.
struct MergeScratch {
  struct Candidate {
    uint32_t rank;
    uint32_t left;     // index of the left symbol
    uint32_t right;    // index of the right symbol
    uint32_t n_bytes;  // of both: tells a candidate that is out of date
    int32_t merged;
    // The heap's top is the lowest rank, among equals the leftmost.
    bool operator<(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  struct Links {
    uint32_t previous;
    uint32_t next;
  };

  std::vector<Symbol> symbols;
  std::vector<Merge> merges;  // of symbol i with i + 1
  std::vector<Links> links;
  std::vector<Candidate> heap;
};

/// Merges scratch.symbols in place. `find(left, right)` gives the Merge of two adjacent symbols.
/// Best for few symbols: quadratic, but without a heap.
template <typename Find>
void merge_few(MergeScratch& scratch, const Find& find) {
  auto& symbols = scratch.symbols;
  auto& merges = scratch.merges;
  merges.clear();
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    merges.push_back(find(symbols[i], symbols[i + 1]));
  }
  while (!merges.empty()) {
    size_t best = 0;
    for (size_t i = 1; i < merges.size(); ++i) {
      if (merges[i].rank < merges[best].rank) best = i;
    }
    if (merges[best].rank == Merge::kNone) return;
    symbols[best].n_bytes += symbols[best + 1].n_bytes;
    symbols[best].id = merges[best].merged;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(best) + 1);
    merges.erase(merges.begin() + static_cast<ptrdiff_t>(best));
    if (best < merges.size()) merges[best] = find(symbols[best], symbols[best + 1]);
    if (best > 0) merges[best - 1] = find(symbols[best - 1], symbols[best]);
  }
}

/// The same for any number of symbols, in n log n.
template <typename Find>
void merge_many(MergeScratch& scratch, const Find& find) {
  constexpr uint32_t kEnd = 0xFFFFFFFF;
  auto& symbols = scratch.symbols;
  auto& links = scratch.links;
  auto& heap = scratch.heap;
  const auto n = static_cast<uint32_t>(symbols.size());
  links.resize(n);
  heap.clear();
  const auto candidate_of = [&](uint32_t left, uint32_t right) {
    const Merge merge = find(symbols[left], symbols[right]);
    return MergeScratch::Candidate{merge.rank, left, right,
                                   symbols[left].n_bytes + symbols[right].n_bytes, merge.merged};
  };
  const auto push = [&](uint32_t left, uint32_t right) {
    const auto candidate = candidate_of(left, right);
    if (candidate.rank == Merge::kNone) return;
    heap.push_back(candidate);
    std::push_heap(heap.begin(), heap.end());
  };
  for (uint32_t i = 0; i < n; ++i) {
    links[i] = {i == 0 ? kEnd : i - 1, i + 1 == n ? kEnd : i + 1};
    if (i == 0) continue;
    const auto candidate = candidate_of(i - 1, i);
    if (candidate.rank != Merge::kNone) heap.push_back(candidate);
  }
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty()) {
    const MergeScratch::Candidate best = heap.front();
    std::pop_heap(heap.begin(), heap.end());
    heap.pop_back();
    Symbol& left = symbols[best.left];
    Symbol& right = symbols[best.right];
    if (left.n_bytes == 0 || right.n_bytes == 0) continue;
    if (left.n_bytes + right.n_bytes != best.n_bytes) continue;
    left.n_bytes = best.n_bytes;
    left.id = best.merged;
    right.n_bytes = 0;
    const uint32_t next = links[best.right].next;
    links[best.left].next = next;
    if (next != kEnd) {
      links[next].previous = best.left;
      push(best.left, next);
    }
    if (links[best.left].previous != kEnd) push(links[best.left].previous, best.left);
  }
  std::erase_if(symbols, [](const Symbol& symbol) { return symbol.n_bytes == 0; });
}

template <typename Find>
void merge_symbols(MergeScratch& scratch, const Find& find) {
  constexpr size_t kFew = 40;  // the two take equally long at 40 to 60 symbols
  if (scratch.symbols.size() <= kFew) {
    merge_few(scratch, find);
  } else {
    merge_many(scratch, find);
  }
}

/// Where the tokens of earlier pieces of the same call lie in its output. A short text has none:
/// clearing the table would cost more than it saves.
class PieceCache {
 public:
  explicit PieceCache(size_t text_bytes) : entries_(text_bytes < kMinTextBytes ? 0 : kNumEntries) {}

  /// Appends the tokens of `piece` to `out` if they are known.
  bool copy(std::string_view piece, uint64_t hash, std::vector<int32_t>& out) const {
    if (entries_.empty()) return false;
    const Entry& entry = entries_[hash % kNumEntries];
    if (std::string_view(entry.data, entry.size) != piece) return false;
    for (uint32_t i = 0; i < entry.n_tokens; ++i) {
      const int32_t token = out[entry.first + i];  // by value: `out` may move
      out.push_back(token);
    }
    return true;
  }

  /// Remembers that the tokens of `piece` begin at `first` in `out`. `piece` must outlive the
  /// cache.
  void remember(std::string_view piece, uint64_t hash, size_t first,
                const std::vector<int32_t>& out) {
    if (entries_.empty()) return;
    entries_[hash % kNumEntries] = {piece.data(), static_cast<uint32_t>(piece.size()),
                                    static_cast<uint32_t>(first),
                                    static_cast<uint32_t>(out.size() - first)};
  }

 private:
  static constexpr size_t kMinTextBytes = 4096;
  static constexpr size_t kNumEntries = 8192;
  struct Entry {
    const char* data = nullptr;
    uint32_t size = 0;
    uint32_t first = 0;
    uint32_t n_tokens = 0;
  };
  std::vector<Entry> entries_;
};

/// Encodes pieces by the rules of one algorithm. `Rules` has
///   void start(std::string_view piece, std::vector<Symbol>& symbols) const;
///   Merge find(std::string_view piece, const Symbol& left, const Symbol& right) const;
///   void emit(std::string_view piece, const Symbol& symbol, std::vector<int32_t>& out) const;
///   const BytesMap& tokens() const;  // by bytes
///   size_t max_token_bytes() const;  // of the longest token of that table
/// Thread-safe.
template <typename Rules>
class PieceEncoder {
 public:
  /// `always_whole`: a piece that is a token is taken, even if merging would end otherwise.
  PieceEncoder(Rules rules, int vocab_size, bool always_whole)
      : rules_(std::move(rules)),
        max_token_bytes_(rules_.max_token_bytes()),
        always_whole_(always_whole),
        whole_(std::make_unique<std::atomic<Whole>[]>(static_cast<size_t>(vocab_size))) {}

  const Rules& rules() const { return rules_; }

  /// Appends the tokens of `piece`.
  void encode(std::string_view piece, PieceCache& cache, MergeScratch& scratch,
              std::vector<int32_t>& out) const {
    if (piece.size() > max_token_bytes_) return merge(piece, scratch, out);
    const uint64_t hash = hash_bytes(piece);
    const int32_t id = rules_.tokens().find(piece, hash);
    if (id >= 0 && is_whole(id, piece, scratch)) {
      out.push_back(id);
      return;
    }
    if (cache.copy(piece, hash, out)) return;
    const size_t first = out.size();
    merge(piece, scratch, out);
    cache.remember(piece, hash, first, out);
  }

 private:
  enum class Whole : uint8_t { kUnknown, kYes, kNo };

  /// Does merging the bytes of `id` give `id`? Nearly always; found out when first asked. Threads
  /// that ask at once find the same, so relaxed order is enough.
  bool is_whole(int32_t id, std::string_view piece, MergeScratch& scratch) const {
    if (always_whole_) return true;
    std::atomic<Whole>& known = whole_[static_cast<size_t>(id)];
    Whole whole = known.load(std::memory_order_relaxed);
    if (whole == Whole::kUnknown) {
      merge(piece, scratch);
      const bool yes = scratch.symbols.size() == 1 && scratch.symbols[0].id == id;
      whole = yes ? Whole::kYes : Whole::kNo;
      known.store(whole, std::memory_order_relaxed);
    }
    return whole == Whole::kYes;
  }

  void merge(std::string_view piece, MergeScratch& scratch) const {
    scratch.symbols.clear();
    rules_.start(piece, scratch.symbols);
    merge_symbols(scratch, [&](const Symbol& left, const Symbol& right) {
      return rules_.find(piece, left, right);
    });
  }

  void merge(std::string_view piece, MergeScratch& scratch, std::vector<int32_t>& out) const {
    merge(piece, scratch);
    for (const Symbol& symbol : scratch.symbols)
      rules_.emit(piece, symbol, out);
  }

  Rules rules_;
  size_t max_token_bytes_;
  bool always_whole_;
  std::unique_ptr<std::atomic<Whole>[]> whole_;  // (vocab_size)
};

}  // namespace dsctl::engine
