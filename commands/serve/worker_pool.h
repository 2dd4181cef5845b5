// A few threads for what takes time: parsing, rendering, tokenising, files. Connections and engines
// never wait for it.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace dsctl::commands::serve {

class WorkerPool {
 public:
  explicit WorkerPool(int n_threads);
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Thread-safe; `work` must not throw. After stop() it is dropped.
  void post(std::function<void()> work);
  /// Runs what was posted before, then ends the threads.
  void stop();

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> queue_;
  bool ending_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace dsctl::commands::serve
