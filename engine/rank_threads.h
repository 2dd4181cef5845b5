// RankThreads: one lasting thread for each rank of a tensor-parallel group, rank 0 being the
// caller's, so that a step costs no thread's start.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "engine/comm/thread_comm.h"

namespace dsctl::engine {

class RankThreads {
 public:
  /// `group` outlives it.
  explicit RankThreads(ThreadGroup& group);
  ~RankThreads();
  RankThreads(const RankThreads&) = delete;
  RankThreads& operator=(const RankThreads&) = delete;

  /// Calls work(rank) on every rank and returns when all are done. When one throws, the group is
  /// aborted so that nobody waits for it, made usable again once all have returned, and the
  /// exception of the rank that failed first is thrown on.
  void run(const std::function<void(int rank)>& work);

 private:
  void rank_main(std::stop_token stop, int rank);
  void call(int rank);

  ThreadGroup& group_;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  const std::function<void(int)>* work_ = nullptr;  // guarded by mutex_, like the rest
  uint64_t n_runs_ = 0;
  int n_busy_ = 0;
  std::exception_ptr failure_;
  std::vector<std::jthread> threads_;  // of ranks 1, 2, ...
};

}  // namespace dsctl::engine
