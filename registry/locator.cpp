#include "registry/locator.h"

#include <utility>

#include "registry/error.h"

namespace dsctl::registry {

Locator::Locator(std::function<void()> wake)
    : wake_(std::move(wake)), thread_([this] { work(); }) {}

Locator::~Locator() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
}

void Locator::ask(size_t file_idx, const RemoteFile& file) {
  {
    const std::lock_guard lock(mutex_);
    asked_.emplace_back(file_idx, &file);
  }
  changed_.notify_all();
}

std::vector<Locator::Result> Locator::take_results() {
  const std::lock_guard lock(mutex_);
  return std::exchange(results_, {});
}

void Locator::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stopping_ || !asked_.empty(); });
    if (stopping_) return;
    const auto [file_idx, file] = asked_.front();
    asked_.pop_front();
    lock.unlock();
    Result result{.file_idx = file_idx, .url = {}, .error = {}};
    try {
      if (!file->locate) throw Error(file->path + ": has no address");
      result.url = file->locate();
    } catch (...) {
      result.error = std::current_exception();
    }
    lock.lock();
    results_.push_back(std::move(result));
    wake_();
  }
}

}  // namespace dsctl::registry
