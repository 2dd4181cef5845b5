// Locator: asks sources for URLs on a thread of its own, one at a time, so that a slow answer stops
// no transfer.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "registry/download.h"

namespace dsctl::registry {

class Locator {
 public:
  struct Result {
    size_t file_idx = 0;
    std::optional<DownloadUrl> url;
    std::exception_ptr error;  // where there is no URL
  };

  /// `wake` is called, from the locator's thread, when there is a result.
  explicit Locator(std::function<void()> wake);
  ~Locator();
  Locator(const Locator&) = delete;
  Locator& operator=(const Locator&) = delete;

  /// Calls `file.locate`, which must live as long as the locator.
  void ask(size_t file_idx, const RemoteFile& file);
  std::vector<Result> take_results();

 private:
  void work();

  std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::deque<std::pair<size_t, const RemoteFile*>> asked_;
  std::vector<Result> results_;
  std::jthread thread_;
};

}  // namespace dsctl::registry
