#include "engine/memory_bandwidth.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <vector>

#include "engine/cpu/thread_pool.h"
#include "engine/cpu/weight_arena.h"
#include "engine/kv_cache.h"

namespace dsctl::engine {
namespace {

constexpr int64_t kMinBytes = int64_t{256} << 20;
constexpr int64_t kMaxBytes = int64_t{4} << 30;
/// The best pass counts; on a machine with other work several are needed to meet a quiet moment.
constexpr int kMinPasses = 7;
constexpr double kMinSeconds = 1.0;
/// A thread's piece: some pages, of which four streams are read at a time.
constexpr int64_t kPieceWords = 32 << 10;
constexpr int64_t kStreams = 4;
constexpr int64_t kLineWords = 8;

int64_t cache_bytes() {
  return std::max<int64_t>(0, sysconf(_SC_LEVEL3_CACHE_SIZE));
}

int64_t buffer_bytes() {
  const int64_t wanted = std::clamp(4 * cache_bytes(), kMinBytes, kMaxBytes);
  const int64_t piece = kPieceWords * 8;
  return std::max(piece, std::min(wanted, free_host_bytes() / 4) / piece * piece);
}

uint64_t read_piece(const uint64_t* words) {
  constexpr int64_t kStreamWords = kPieceWords / kStreams;
  std::array<uint64_t, kStreams * kLineWords> sums{};
  for (int64_t i = 0; i < kStreamWords; i += kLineWords) {
    for (int64_t stream = 0; stream < kStreams; ++stream) {
      const uint64_t* line = words + stream * kStreamWords + i;
      for (int64_t j = 0; j < kLineWords; ++j)
        sums[static_cast<size_t>(stream * kLineWords + j)] += line[j];
    }
  }
  uint64_t sum = 0;
  for (const uint64_t one : sums)
    sum += one;
  return sum;
}

}  // namespace

MemoryBandwidth measure_memory_bandwidth(int n_threads) {
  ThreadPool pool(n_threads);
  WeightArena arena;
  const int64_t size = buffer_bytes();
  const WeightArena::Memory memory = arena.allocate(static_cast<size_t>(size));
  const int64_t n_pieces = size / (kPieceWords * 8);
  const auto* words = reinterpret_cast<const uint64_t*>(memory.get());
  // Written by who reads it: on machines of several memories pages lie with who touches them first.
  pool.parallel_for(n_pieces, 1, [&](int64_t begin, int64_t end, int /*thread_idx*/) {
    std::memset(memory.get() + begin * kPieceWords * 8, 0x5a,
                static_cast<size_t>((end - begin) * kPieceWords * 8));
  });
  std::vector<uint64_t> sums(static_cast<size_t>(n_threads) * kLineWords);
  double best_seconds = 1e30;
  double all_seconds = 0;
  for (int pass = 0; pass < kMinPasses || all_seconds < kMinSeconds; ++pass) {
    const auto begin_time = std::chrono::steady_clock::now();
    pool.parallel_for(n_pieces, 1, [&](int64_t begin, int64_t end, int thread_idx) {
      uint64_t sum = 0;
      for (int64_t i = begin; i < end; ++i)
        sum += read_piece(words + i * kPieceWords);
      sums[static_cast<size_t>(thread_idx) * kLineWords] += sum;
    });
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin_time;
    best_seconds = std::min(best_seconds, seconds.count());
    all_seconds += seconds.count();
  }
  // Keeps the reads from being optimised away.
  volatile uint64_t kept = 0;
  for (const uint64_t sum : sums)
    kept = kept + sum;
  return {.read_gb_s = static_cast<double>(size) / best_seconds / 1e9,
          .n_threads = n_threads,
          .buffer_bytes = size,
          .cache_bytes = cache_bytes()};
}

}  // namespace dsctl::engine
