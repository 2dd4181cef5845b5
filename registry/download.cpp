#include "registry/download.h"

#include <algorithm>
#include <thread>

#include "registry/downloader.h"
#include "registry/error.h"

namespace dsctl::registry {
namespace {

using std::chrono::milliseconds;

constexpr int kMostReplaced = 3;  // slow connections of one chunk

int hash_thread_count(size_t n_files) {
  const int n_cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(std::min(n_cores / 2, static_cast<int>(std::min<size_t>(n_files, 4))), 1, 4);
}

}  // namespace

Downloader::Downloader(std::span<const DownloadTask> tasks, const DownloadOptions& options,
                       std::stop_token stop)
    : options_(options),
      stop_(std::move(stop)),
      set_(2L * std::max(1, options.jobs)),
      locator_([this] { set_.wake(); }),
      hasher_(hash_thread_count(tasks.size()), [this] { set_.wake(); }),
      rate_(options.limit_bytes_per_second),
      backoff_(options.http.first_retry_ms, options.http.max_asked_wait_ms),
      n_allowed_(std::max(1, options.jobs)) {
  for (size_t i = 0; i < tasks.size(); ++i) {
    files_.push_back(std::make_unique<FileDownload>(tasks[i], i));
  }
  for (int i = 0; i < std::max(1, options.jobs); ++i) {
    slots_.push_back(std::make_unique<Slot>(options.http));
  }
}

Downloader::~Downloader() {
  for (const auto& slot : slots_) {
    if (slot->file) set_.remove(slot->transfer);
  }
  for (const auto& file : files_) {
    hasher_.remove(file->file_idx());
    try {
      if (file->partial_) file->partial_->flush_journal();
    } catch (const Error&) {
      // the disk is full or gone; what the journal lacks is fetched again
    }
  }
}

std::vector<Digest> Downloader::run() {
  const std::stop_callback wake_on_stop(stop_, [this] { set_.wake(); });
  while (n_finished_ < files_.size()) {
    if (stop_.stop_requested()) throw Error("download stopped; what arrived stays");
    step();
  }
  std::vector<Digest> digests;
  for (const auto& file : files_)
    digests.push_back(file->digest);
  return digests;
}

void Downloader::step() {
  Clock::time_point now = Clock::now();
  check_locks(now);
  take_urls(now);
  take_hashes();
  set_.perform();
  now = Clock::now();
  end_requests();
  watch_requests(now);
  resume_paused(now);
  advance_hashes();
  tell_progress(now);
  start_requests(now);
  if (n_finished_ < files_.size()) set_.wait(wait_ms(now));
}

int Downloader::wait_ms(Clock::time_point now) {
  constexpr milliseconds kLongest{100};
  milliseconds wait = kLongest;
  const auto until = [&](Clock::time_point time) {
    const auto left = std::chrono::ceil<milliseconds>(time - now);
    wait = std::clamp(left, milliseconds(0), wait);
  };
  bool has_idle = false;
  for (const auto& slot : slots_) {
    if (slot->is_paused) wait = std::min(wait, rate_.wait(now));
    has_idle |= slot->file == nullptr;
  }
  if (!has_idle) return static_cast<int>(wait.count());
  for (const auto& file : files_) {
    if (file->phase != FileDownload::Phase::kFetching) continue;
    // Work that is due but can't start (its origin is held) must not make this loop spin.
    if (const auto start = file->next_start(); start && *start > now) until(*start);
  }
  return static_cast<int>(wait.count());
}

/// Ends requests that bring nothing any more, and replaces connections that are far slower than
/// the others.
void Downloader::watch_requests(Clock::time_point now) {
  const milliseconds stall(options_.http.stall_timeout_ms);
  for (const auto& slot : slots_) {
    if (!slot->file || slot->is_paused) continue;
    if (now - slot->last_byte > stall) {
      end_failed(*slot,
                 printable_url(slot->target.url) + ": no byte for " +
                     std::to_string(stall.count()) + " ms",
                 now);
      continue;
    }
    const auto window = now - slot->window_begin;
    if (window < stall / 6 || !slot->is_judged || slot->is_sizeless || rate_.is_limited()) continue;
    const std::chrono::duration<double> seconds = window;
    const std::chrono::duration<double> patience = stall / 3;
    const int64_t position = slot->work.chunk.position;
    const double rate = static_cast<double>(position - slot->window_position) / seconds.count();
    slot->window_begin = now;
    slot->window_position = position;
    const bool is_slow = rate < usual_rate_ / 8 &&
                         rate * patience.count() < static_cast<double>(slot->work.chunk.missing());
    if (is_slow && slot->work.kind == FileWork::Kind::kRange &&
        slot->work.n_replaced < kMostReplaced) {
      ++slot->work.n_replaced;
      return_work(*slot, printable_url(slot->target.url) + ": a slow connection is replaced",
                  milliseconds(0));
    }
  }
}

void Downloader::resume_paused(Clock::time_point now) {
  for (size_t i = 0; i < slots_.size(); ++i) {
    Slot& slot = *slots_[i];
    if (!slot.file || !slot.is_paused || !rate_.allows(now)) continue;
    slot.is_paused = false;
    slot.last_byte = now;
    curl_easy_pause(slot.transfer.handle(), CURLPAUSE_CONT);  // may pause again at once
  }
  // The next round begins with another connection.
  if (rate_.is_limited() && !slots_.empty()) {
    std::rotate(slots_.begin(), slots_.begin() + 1, slots_.end());
  }
}

std::vector<Digest> download(std::span<const DownloadTask> tasks, const DownloadOptions& options,
                             std::stop_token stop) {
  if (options.jobs < 1 || options.jobs > 256) {
    throw Error("jobs is " + std::to_string(options.jobs) + ", expected 1 to 256");
  }
  return Downloader(tasks, options, std::move(stop)).run();
}

}  // namespace dsctl::registry
