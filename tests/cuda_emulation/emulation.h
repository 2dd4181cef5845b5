// CUDA kernels on the host, for tests on machines without a GPU: every thread of a block is a fiber
// that runs until it meets a barrier, blocks run one after the other. That finds wrong indices,
// missing barriers (threads run in either order), barriers that not all threads reach, stale
// arguments in graphs and, under AddressSanitizer, accesses outside of an allocation. It says
// nothing of speed, of memory ordering between blocks or of alignment.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

namespace emulation {

struct Index {
  unsigned x = 0;
  unsigned y = 0;
  unsigned z = 0;
};

/// What the running thread sees.
struct Position {
  Index thread;
  Index block;
  Index block_size;
  Index grid_size;
};
const Position& position();

/// In which order the threads of a block take turns.
enum class Order { kForward, kReverse };
void set_order(Order order);

/// Runs `body` once for each thread of the grid. Ends the program with a message when threads wait
/// for each other for ever.
void run_grid(Index grid, Index block, size_t shared_bytes, const std::function<void()>& body);

/// Dynamic shared memory of the running block, filled with 0xff when the block began.
void* dynamic_shared();

void sync_threads();
void sync_warp();
int lane();
/// Stores `n_bytes` (at most 64) of this lane where all lanes of the warp can read them; the other
/// lanes' bytes are valid until end_exchange. All 32 lanes take part.
const unsigned char (*exchange(const void* own, size_t n_bytes))[64];
void end_exchange();

template <typename T>
T shuffle(T value, int from_lane) {
  static_assert(sizeof(T) <= 64);
  const auto* all = exchange(&value, sizeof(T));
  T result;
  std::memcpy(&result, all[from_lane & 31], sizeof(T));
  end_exchange();
  return result;
}

/// The next call of the runtime, after `n_calls` that succeed, fails with an illegal address, and
/// so do all calls after it. Negative: never.
void fail_after(int n_calls);

}  // namespace emulation
