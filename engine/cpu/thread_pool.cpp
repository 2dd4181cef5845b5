#include "engine/cpu/thread_pool.h"

#include <algorithm>
#include <cassert>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dsctl::engine {
namespace {

/// Pauses before a waiting thread goes to sleep: 20 to 40 microseconds, longer than the serial work
/// between two loops of a step and too short to matter to anyone who shares the core.
constexpr int kSpinPauses = 1000;
/// Pieces of a thread's share. More even the load better, each costs an atomic addition.
constexpr int64_t kPiecesPerThread = 4;

void pause_briefly() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

/// Returns the value when it differs from `old`: spins a bounded time, then sleeps in the kernel.
uint32_t wait_for_change(const std::atomic<uint32_t>& value, uint32_t old) {
  for (int i = 0; i < kSpinPauses; ++i) {
    const uint32_t now = value.load(std::memory_order_acquire);
    if (now != old) return now;
    pause_briefly();
  }
  value.wait(old, std::memory_order_acquire);
  return value.load(std::memory_order_acquire);
}

}  // namespace

ThreadPool::ThreadPool(int n_threads)
    : n_threads_(std::max(1, n_threads)), shares_(std::make_unique<Share[]>(n_threads_)) {
  assert(n_threads >= 1);
  threads_.reserve(n_threads_ - 1);
  for (int i = 1; i < n_threads_; ++i)
    threads_.emplace_back([this, i] { worker_main(i); });
}

ThreadPool::~ThreadPool() {
  stopping_.store(true, std::memory_order_relaxed);
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();
  for (std::thread& thread : threads_)
    thread.join();
}

void ThreadPool::run(int64_t n, int64_t min_piece, Function function, void* context) {
  if (n <= 0) return;
  const int64_t n_wanted = static_cast<int64_t>(n_threads_) * kPiecesPerThread;
  const int64_t n_pieces = std::min(n_wanted, n / std::max<int64_t>(1, min_piece));
  if (n_threads_ == 1 || n_pieces < 2) {
    function(context, 0, n, 0);
    return;
  }
  function_ = function;
  context_ = context;
  n_ = n;
  n_pieces_ = n_pieces;
  n_pending_.store(static_cast<uint32_t>(n_pieces), std::memory_order_relaxed);
  for (int64_t i = 0; i < n_threads_; ++i) {
    const uint64_t begin = static_cast<uint64_t>(n_pieces * i / n_threads_);
    const uint64_t end = static_cast<uint64_t>(n_pieces * (i + 1) / n_threads_);
    shares_[i].next_and_end.store(end << 32 | begin, std::memory_order_release);
  }
  epoch_.fetch_add(1, std::memory_order_release);
  epoch_.notify_all();  // no system call unless a worker sleeps

  work(0);
  for (uint32_t left = n_pending_.load(std::memory_order_acquire); left != 0;) {
    left = wait_for_change(n_pending_, left);
  }
}

/// Takes pieces until none is left: the thread's own share first, then the others'. A worker that
/// comes late may find the next loop's pieces here: a claim is a claim, it works on those.
void ThreadPool::work(int thread_idx) {
  for (int i = 0; i < n_threads_; ++i) {
    const int owner = thread_idx + i < n_threads_ ? thread_idx + i : thread_idx + i - n_threads_;
    std::atomic<uint64_t>& share = shares_[owner].next_and_end;
    for (;;) {
      const uint64_t seen = share.load(std::memory_order_relaxed);
      if ((seen & 0xffffffffu) >= seen >> 32) break;
      const uint64_t claim = share.fetch_add(1, std::memory_order_acq_rel);
      const int64_t piece = static_cast<int64_t>(claim & 0xffffffffu);
      if (piece >= static_cast<int64_t>(claim >> 32)) break;
      function_(context_, n_ * piece / n_pieces_, n_ * (piece + 1) / n_pieces_, thread_idx);
      if (n_pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) n_pending_.notify_one();
    }
  }
}

void ThreadPool::worker_main(int thread_idx) {
  uint32_t epoch = 0;
  while (!stopping_.load(std::memory_order_relaxed)) {
    epoch = wait_for_change(epoch_, epoch);
    if (stopping_.load(std::memory_order_relaxed)) return;
    work(thread_idx);
  }
}

}  // namespace dsctl::engine
