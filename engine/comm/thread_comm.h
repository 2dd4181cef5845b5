// ThreadGroup: ranks as threads of this process, which read each other's buffers. The form that
// tensor parallelism on the CPU runs with, and that proves it before any GPU.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine/comm/communicator.h"

namespace dsctl::engine {

/// Owns the ends of all ranks. A rank that can't go on must call abort (run_ranks does it), since
/// its fellows wait for it.
class ThreadGroup {
 public:
  explicit ThreadGroup(int n_ranks);
  ~ThreadGroup();
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  int size() const { return static_cast<int>(ends_.size()); }
  Communicator& rank(int rank);

  /// Makes every operation of every rank, waiting or to come, throw Error with `reason`; the first
  /// reason stays. Thread-safe.
  void abort(const std::string& reason);
  bool aborted() const;
  /// Makes an aborted group usable again. Only while no rank is inside an operation.
  void reset();

 private:
  class End;
  struct Shared;
  std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<End>> ends_;
};

/// Calls `work` once for each rank, each on a thread of its own, rank 0 on the caller's. When one
/// throws, the group is aborted, and once all have returned the first rank's own exception (not the
/// Error that the abort raised in others) is thrown on.
void run_ranks(ThreadGroup& group, const std::function<void(Communicator&)>& work);

}  // namespace dsctl::engine
