// Downloader: the loop of a download. One thread drives all connections, writes what arrives and
// decides what comes next; hashing and asking for URLs happen on threads of their own. Internal to
// download*.cpp: download.cpp has the loop, download_files.cpp what becomes of a file,
// download_requests.cpp what becomes of a request.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <map>
#include <memory>
#include <span>
#include <stop_token>
#include <string>
#include <vector>

#include "registry/curl_transfer.h"
#include "registry/download.h"
#include "registry/file_download.h"
#include "registry/front_hasher.h"
#include "registry/locator.h"
#include "registry/rate_limit.h"
#include "registry/request_target.h"
#include "registry/response_check.h"
#include "registry/retry.h"

namespace dsctl::registry {

/// How often a file's progress is told, at most.
inline constexpr std::chrono::milliseconds kEventInterval{100};

/// For what counts in milliseconds: the expiry of URLs.
inline int64_t steady_ms(std::chrono::steady_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

/// The download of download.h while it runs.
class Downloader {
 public:
  using Clock = std::chrono::steady_clock;
  using milliseconds = std::chrono::milliseconds;

  Downloader(std::span<const DownloadTask> tasks, const DownloadOptions& options,
             std::stop_token stop);
  ~Downloader();
  std::vector<Digest> run();

 private:
  /// One connection's present request.
  struct Slot {
    explicit Slot(const HttpOptions& http) : transfer(http) {}
    CurlTransfer transfer;
    FileDownload* file = nullptr;  // nothing: idle
    FileWork work;
    RequestTarget target;
    int generation = 0;
    int n_redirects = 0;
    bool is_judged = false;
    bool is_sizeless = false;  // a whole body whose length nobody told
    ResponseVerdict verdict;
    uint8_t epoch = 0;
    int64_t begin = 0;  // position at the start of the request
    size_t n_swallowed = 0;
    bool is_paused = false;
    std::string failure;      // why the body was refused, where the verdict doesn't say
    bool is_changed = false;  // the remote file is another one now
    bool is_wrong_size = false;
    std::exception_ptr error;  // of writing: ends the download
    Clock::time_point last_byte{};
    Clock::time_point window_begin{};
    int64_t window_position = 0;
  };

  // Once around.
  void step();
  void check_locks(Clock::time_point now);
  void take_urls(Clock::time_point now);
  void take_hashes();
  void start_requests(Clock::time_point now);
  bool start_one(Slot& slot, Clock::time_point now);
  void end_requests();
  void watch_requests(Clock::time_point now);
  void resume_paused(Clock::time_point now);
  void advance_hashes();
  int wait_ms(Clock::time_point now);

  // Files.
  bool activate_next(Clock::time_point now);
  void activate(FileDownload& file, Clock::time_point now);
  bool settle_by_target(FileDownload& file);
  void start_hash(FileDownload& file);
  void restart(FileDownload& file, int64_t size_bytes);
  void cancel_requests(FileDownload& file);
  void check_digest(FileDownload& file, const Digest& digest);
  void fetch_instead(FileDownload& file);
  std::string mismatch(const FileDownload& file, const Digest& digest) const;
  void finish(FileDownload& file, const Digest& digest);
  void tell(FileDownload& file, DownloadEventType type, std::string message = "");
  void tell_progress(Clock::time_point now);
  int64_t done_bytes(const FileDownload& file) const;

  // Requests.
  void begin_request(Slot& slot, Clock::time_point now);
  /// Whether the request names no range.
  static bool wants_everything(const Slot& slot) {
    return slot.work.kind == FileWork::Kind::kStream || slot.file->is_rangeless;
  }
  size_t on_body(Slot& slot, std::span<const std::byte> data);
  void judge(Slot& slot);
  void accept(Slot& slot);
  bool accept_size(Slot& slot);
  bool accept_validator(Slot& slot);
  bool accept_whole(Slot& slot);
  size_t store(Slot& slot, std::span<const std::byte> data);
  void end_request(Slot& slot, CURLcode code, Clock::time_point now);
  void end_failed(Slot& slot, const std::string& reason, Clock::time_point now);
  void free_slot(Slot& slot);
  void slow_down(const RequestTarget& target, milliseconds delay, Clock::time_point now);
  void return_work(Slot& slot, const std::string& reason, milliseconds delay);
  [[noreturn]] void give_up(const FileDownload& file, const std::string& reason) const;
  std::string origin_key(const RequestTarget& target) const;

  const DownloadOptions& options_;
  std::stop_token stop_;
  CurlSet set_;
  Locator locator_;
  FrontHasher hasher_;
  RateLimit rate_;
  Backoff backoff_;
  std::vector<std::unique_ptr<FileDownload>> files_;
  std::vector<std::unique_ptr<Slot>> slots_;
  size_t n_finished_ = 0;
  int n_allowed_;  // connections that servers seem to bear
  Clock::time_point last_slow_down_{};
  std::map<std::string, Clock::time_point> held_;  // origins that asked to be left alone
  double usual_rate_ = 0;  // bytes per second of one connection, of requests that went well
  int64_t fetched_bytes_ = 0;
};

}  // namespace dsctl::registry
