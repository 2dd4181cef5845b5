// POST /api/pull: Ollama's stream of status objects around the same pull that the command makes.
#pragma once

#include <functional>
#include <list>
#include <mutex>
#include <stop_token>
#include <thread>

#include "commands/serve/api_ollama.h"

namespace dsctl::commands::serve {

/// Threads of pulls in progress: they last for hours, so the few workers are not for them.
class PullThreads {
 public:
  PullThreads() = default;
  ~PullThreads() { stop(); }
  PullThreads(const PullThreads&) = delete;
  PullThreads& operator=(const PullThreads&) = delete;

  /// Runs `work`, which must not throw, with a source that stop() asks. False when too many run.
  bool start(std::function<void(std::stop_source)> work);
  /// Asks all to end, and waits until they have.
  void stop();

 private:
  static constexpr size_t kMaxPulls = 16;
  struct Pull {
    std::stop_source source;
    bool is_over = false;
    std::thread thread;
  };
  void join_finished();

  std::mutex mutex_;
  bool ending_ = false;
  std::list<Pull> pulls_;
};

void add_ollama_pull(Router& router, const ApiContext& context, PullThreads& threads);

}  // namespace dsctl::commands::serve
