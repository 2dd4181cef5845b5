#include "engine/cpu/weight_arena.h"

#include <cstdint>
#include <cstring>
#include <vector>

#include "tests/support/catch.h"

namespace dsctl::engine {
namespace {

TEST_CASE("WeightArena's pieces are aligned, apart and outlive it") {
  std::vector<WeightArena::Memory> pieces;
  const std::vector<size_t> sizes = {1, 64, 100, 300000, 9u << 20, 5u << 20, 5u << 20, 5u << 20, 7};
  {
    WeightArena arena;
    for (const size_t size : sizes) {
      pieces.push_back(arena.allocate(size));
      CHECK(reinterpret_cast<uintptr_t>(pieces.back().get()) % 64 == 0);
      std::memset(pieces.back().get(), static_cast<int>(pieces.size()), size);
    }
  }
  for (size_t i = 0; i < pieces.size(); ++i) {
    const std::vector<std::byte> want(sizes[i], std::byte(i + 1));
    CHECK(std::memcmp(pieces[i].get(), want.data(), want.size()) == 0);
  }
}

}  // namespace
}  // namespace dsctl::engine
