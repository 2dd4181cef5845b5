#include "engine/block_manager.h"

#include <numeric>
#include <random>
#include <vector>

#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

std::vector<int32_t> numbers(int begin, int end) {
  std::vector<int32_t> tokens(static_cast<size_t>(end - begin));
  std::iota(tokens.begin(), tokens.end(), begin);
  return tokens;
}

uint64_t colliding_hash(uint64_t /*previous*/, std::span<const int32_t> tokens) {
  return static_cast<uint64_t>(tokens[0]) % 3;
}

TEST_CASE("Blocks are counted out and back") {
  BlockManager blocks(4, 8, PrefixCaching::kOn);
  BlockTable table;
  CHECK(blocks.allocate(numbers(0, 17), 0, table) == 0);
  CHECK(table.block_ids.size() == 3);
  CHECK(blocks.n_used() == 3);
  CHECK(blocks.n_free() == 1);
  CHECK(blocks.grow(table, 24));
  CHECK(table.block_ids.size() == 3);
  CHECK(blocks.grow(table, 25));
  CHECK(blocks.n_free() == 0);
  CHECK_FALSE(blocks.grow(table, 33));
  CHECK(table.block_ids.size() == 4);
  blocks.release(table);
  CHECK(table.block_ids.empty());
  CHECK(blocks.n_free() == 4);
  CHECK(blocks.is_consistent());
}

TEST_CASE("An allocation that is too large changes nothing") {
  BlockManager blocks(4, 8, PrefixCaching::kOn);
  BlockTable table;
  CHECK_FALSE(blocks.allocate(numbers(0, 33), 0, table));
  CHECK_FALSE(blocks.allocate(numbers(0, 17), 2, table));
  CHECK(table.block_ids.empty());
  CHECK(blocks.n_free() == 4);
  CHECK(blocks.allocate(numbers(0, 17), 1, table));
}

TEST_CASE("A computed prefix is shared in whole blocks, in use or after release") {
  BlockManager blocks(8, 4, PrefixCaching::kOn);
  const auto tokens = numbers(0, 11);
  BlockTable first;
  REQUIRE(blocks.allocate(tokens, 0, first) == 0);
  BlockTable early;
  CHECK(blocks.allocate(tokens, 0, early) == 0);  // nothing is computed yet
  blocks.release(early);
  blocks.commit(tokens, 7, first);  // one whole block
  BlockTable second;
  CHECK(blocks.allocate(tokens, 0, second) == 4);
  CHECK(second.block_ids[0] == first.block_ids[0]);
  CHECK(second.block_ids[1] != first.block_ids[1]);
  blocks.commit(tokens, 11, first);
  const auto cached = first.block_ids;
  blocks.release(first);
  blocks.release(second);
  CHECK(blocks.n_free() == 8);
  BlockTable third;
  CHECK(blocks.allocate(tokens, 0, third) == 8);
  CHECK(std::vector<int32_t>(third.block_ids.begin(), third.block_ids.begin() + 2) ==
        std::vector<int32_t>(cached.begin(), cached.begin() + 2));
  CHECK(blocks.n_used() == 3);
  CHECK(blocks.is_consistent());
}

TEST_CASE("The last token of a prompt is never taken from the cache") {
  BlockManager blocks(8, 4, PrefixCaching::kOn);
  const auto tokens = numbers(0, 8);
  BlockTable first;
  REQUIRE(blocks.allocate(tokens, 0, first));
  blocks.commit(tokens, 8, first);
  BlockTable second;
  CHECK(blocks.allocate(tokens, 0, second) == 4);
  BlockTable third;
  CHECK(blocks.allocate(numbers(0, 9), 0, third) == 8);
}

TEST_CASE("The same block after another beginning is another content") {
  BlockManager blocks(16, 2, PrefixCaching::kOn);
  const std::vector<int32_t> first_tokens{1, 2, 5, 6, 7};
  const std::vector<int32_t> second_tokens{3, 4, 5, 6, 7};
  BlockTable first;
  REQUIRE(blocks.allocate(first_tokens, 0, first));
  blocks.commit(first_tokens, 4, first);
  BlockTable second;
  CHECK(blocks.allocate(second_tokens, 0, second) == 0);
}

TEST_CASE("Contents whose hashes collide are told apart by their tokens") {
  BlockManager blocks(16, 2, PrefixCaching::kOn, &colliding_hash);
  const std::vector<int32_t> a{0, 1, 3, 1, 9};
  const std::vector<int32_t> b{3, 1, 0, 1, 9};
  BlockTable table_a;
  BlockTable table_b;
  REQUIRE(blocks.allocate(a, 0, table_a) == 0);
  blocks.commit(a, 5, table_a);
  REQUIRE(blocks.allocate(b, 0, table_b) == 0);
  blocks.commit(b, 5, table_b);
  BlockTable again;
  CHECK(blocks.allocate(b, 0, again) == 4);
  CHECK(again.block_ids[0] == table_b.block_ids[0]);
  CHECK(blocks.is_consistent());
}

TEST_CASE("The content unused for longest is forgotten first, a chain from its end") {
  BlockManager blocks(4, 2, PrefixCaching::kOn);
  const auto old_tokens = numbers(0, 4);
  const auto new_tokens = numbers(10, 14);
  BlockTable table;
  REQUIRE(blocks.allocate(old_tokens, 0, table));
  blocks.commit(old_tokens, 4, table);
  blocks.release(table);
  REQUIRE(blocks.allocate(new_tokens, 0, table));
  blocks.commit(new_tokens, 4, table);
  blocks.release(table);
  // One more block: the end of the old chain goes.
  BlockTable other;
  REQUIRE(blocks.allocate(numbers(50, 51), 0, other));
  // Looking allocates, hence on copies.
  BlockTable found_old;
  CHECK(BlockManager(blocks).allocate(numbers(0, 5), 0, found_old) == 2);
  BlockTable found_new;
  CHECK(BlockManager(blocks).allocate(numbers(10, 15), 0, found_new) == 4);
  CHECK(blocks.is_consistent());
}

TEST_CASE("Without prefix caching nothing is shared") {
  BlockManager blocks(8, 4, PrefixCaching::kOff);
  const auto tokens = numbers(0, 9);
  BlockTable first;
  REQUIRE(blocks.allocate(tokens, 0, first));
  blocks.commit(tokens, 9, first);
  BlockTable second;
  CHECK(blocks.allocate(tokens, 0, second) == 0);
  CHECK(blocks.is_consistent());
}

/// Random sequences that start, grow and go, over a memory that remembers what was written where.
void run_random_operations(BlockManager::Hash hash, PrefixCaching caching, uint32_t seed,
                           int n_operations) {
  constexpr int kBlocks = 24;
  constexpr int kBlockSize = 3;
  struct Live {
    std::vector<int32_t> tokens;
    int n_computed = 0;
    BlockTable table;
  };
  BlockManager blocks(kBlocks, kBlockSize, caching, hash);
  std::mt19937 random(seed);
  const auto below = [&](size_t n) { return static_cast<size_t>(random() % n); };
  std::vector<int32_t> memory(kBlocks * kBlockSize, -1);
  std::vector<Live> live;
  int64_t n_cached = 0;
  const auto slot = [&](const Live& sequence, int position) -> int32_t& {
    const int32_t id = sequence.table.block_ids[static_cast<size_t>(position / kBlockSize)];
    return memory[static_cast<size_t>(id * kBlockSize + position % kBlockSize)];
  };
  for (int operation = 0; operation < n_operations; ++operation) {
    const size_t kind = below(10);
    if (kind < 3) {
      Live sequence;
      sequence.tokens.resize(1 + below(20));
      for (int32_t& token : sequence.tokens)
        token = static_cast<int32_t>(below(2));
      const auto found =
          blocks.allocate(sequence.tokens, static_cast<int>(below(3)), sequence.table);
      if (found) {
        sequence.n_computed = *found;
        n_cached += *found;
        REQUIRE(*found < static_cast<int>(sequence.tokens.size()));
        live.push_back(std::move(sequence));
      }
    } else if (!live.empty()) {
      const size_t idx = below(live.size());
      Live& sequence = live[idx];
      if (kind < 5) {
        blocks.release(sequence.table);
        live.erase(live.begin() + static_cast<ptrdiff_t>(idx));
      } else if (sequence.n_computed < static_cast<int>(sequence.tokens.size())) {
        const auto n_left = sequence.tokens.size() - static_cast<size_t>(sequence.n_computed);
        const int end = sequence.n_computed + 1 + static_cast<int>(below(n_left));
        for (; sequence.n_computed < end; ++sequence.n_computed) {
          slot(sequence, sequence.n_computed) =
              sequence.tokens[static_cast<size_t>(sequence.n_computed)];
        }
        blocks.commit(sequence.tokens, sequence.n_computed, sequence.table);
      } else if (blocks.grow(sequence.table, static_cast<int>(sequence.tokens.size()) + 1)) {
        sequence.tokens.push_back(static_cast<int32_t>(below(2)));
      }
    }
    REQUIRE(blocks.n_free() + blocks.n_used() == kBlocks);
    if (operation % 64 != 0) continue;
    REQUIRE(blocks.is_consistent());
    for (const Live& sequence : live) {
      for (int position = 0; position < sequence.n_computed; ++position) {
        REQUIRE(slot(sequence, position) == sequence.tokens[static_cast<size_t>(position)]);
      }
    }
  }
  for (Live& sequence : live)
    blocks.release(sequence.table);
  CHECK(blocks.n_free() == kBlocks);
  CHECK(blocks.is_consistent());
  CHECK((n_cached > 0) == (caching == PrefixCaching::kOn));
}

TEST_CASE("Books balance and memory holds what tables say over 500000 random operations") {
  run_random_operations(&BlockManager::hash_tokens, PrefixCaching::kOn, 1, 200000);
  run_random_operations(&colliding_hash, PrefixCaching::kOn, 2, 200000);
  run_random_operations(&BlockManager::hash_tokens, PrefixCaching::kOff, 3, 100000);
}

}  // namespace
}  // namespace dsctl::engine
