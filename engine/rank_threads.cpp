#include "engine/rank_threads.h"

#include <string>

namespace dsctl::engine {

RankThreads::RankThreads(ThreadGroup& group) : group_(group) {
  for (int rank = 1; rank < group.size(); ++rank)
    threads_.emplace_back([this, rank](std::stop_token stop) { rank_main(stop, rank); });
}

RankThreads::~RankThreads() {
  for (std::jthread& thread : threads_)
    thread.request_stop();
}

void RankThreads::call(int rank) {
  try {
    (*work_)(rank);
  } catch (const std::exception& error) {
    // Only the first failure is of interest: the others' come from the abort.
    {
      const std::lock_guard lock(mutex_);
      if (failure_ == nullptr) failure_ = std::current_exception();
    }
    group_.abort("rank " + std::to_string(rank) + " failed: " + error.what());
  }
}

void RankThreads::rank_main(std::stop_token stop, int rank) {
  uint64_t n_done = 0;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (!changed_.wait(lock, stop, [&] { return n_runs_ != n_done; })) return;
      n_done = n_runs_;
    }
    call(rank);
    const std::lock_guard lock(mutex_);
    if (--n_busy_ == 0) changed_.notify_all();
  }
}

void RankThreads::run(const std::function<void(int rank)>& work) {
  {
    const std::lock_guard lock(mutex_);
    work_ = &work;
    failure_ = nullptr;
    n_busy_ = static_cast<int>(threads_.size());
    ++n_runs_;
  }
  changed_.notify_all();
  call(0);
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return n_busy_ == 0; });
  if (failure_ == nullptr) return;
  group_.reset();
  std::rethrow_exception(failure_);
}

}  // namespace dsctl::engine
