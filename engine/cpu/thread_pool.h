// ThreadPool: persistent threads that share one loop at a time. A decode step of a small model has
// some hundred such loops of a few microseconds each, so starting and joining one must cost little;
// and a machine's cores are often shared, so nobody may burn a core while there is nothing to do.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace dsctl::engine {

/// A team of n_threads threads: the caller of parallel_for and n_threads - 1 of its own. Each
/// thread has a fixed share of the loop (the same weights meet the same core in every step); who
/// finishes first takes pieces of the others' shares, so that a thread which the system does not
/// run holds up nobody. The pieces carry no meaning for results: a body must compute the same for
/// an index whichever piece it comes in.
///
/// One thread calls parallel_for at a time, and bodies do not call it. Several pools may live.
class ThreadPool {
 public:
  /// `n_threads` >= 1, the caller included; 1 starts no thread.
  explicit ThreadPool(int n_threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int n_threads() const { return n_threads_; }

  /// Calls body(begin, end, thread_idx) on pieces that cover [0, n) once and returns when all are
  /// done. Pieces hold at least `min_piece` indices (but the last); with fewer than two such pieces
  /// the caller does it all. thread_idx in [0, n_threads) is the executing thread, for scratch
  /// memory. The body must not throw.
  template <typename Body>
  void parallel_for(int64_t n, int64_t min_piece, Body&& body) {
    using Plain = std::remove_reference_t<Body>;
    run(
        n, min_piece,
        [](void* context, int64_t begin, int64_t end, int thread_idx) {
          (*static_cast<Plain*>(context))(begin, end, thread_idx);
        },
        const_cast<std::remove_const_t<Plain>*>(&body));
  }

 private:
  using Function = void (*)(void* context, int64_t begin, int64_t end, int thread_idx);

  /// A thread's share: the next piece in the low half, the end of the share in the high half, so
  /// that one fetch_add claims a piece or learns that none is left. On a cache line of its own.
  struct alignas(64) Share {
    std::atomic<uint64_t> next_and_end{0};
  };

  void run(int64_t n, int64_t min_piece, Function function, void* context);
  void work(int thread_idx);
  void worker_main(int thread_idx);

  const int n_threads_;
  std::unique_ptr<Share[]> shares_;

  // The current loop. A claimed piece keeps the loop from ending, so these are stable for whoever
  // holds one; nobody else may read them.
  Function function_ = nullptr;
  void* context_ = nullptr;
  int64_t n_ = 0;
  int64_t n_pieces_ = 0;

  alignas(64) std::atomic<uint32_t> epoch_{0};      // counts loops; workers wait for its change
  alignas(64) std::atomic<uint32_t> n_pending_{0};  // pieces not done; the caller waits for 0
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> threads_;
};

}  // namespace dsctl::engine
