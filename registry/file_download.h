// FileDownload: one file on its way, without the network: what is to be asked for next, where, and
// what an outcome means for the rest. The download's loop (download.cpp) owns the connections.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "registry/download.h"
#include "registry/partial_file.h"
#include "registry/request_target.h"
#include "registry/response_check.h"

namespace dsctl::registry {

/// What one request is to bring.
struct FileWork {
  enum class Kind {
    kRange,   // [chunk.position, chunk.end)
    kProbe,   // the first bytes of a file whose size nobody has told
    kStream,  // everything from 0: the server gives no ranges
  } kind = Kind::kRange;
  Chunk chunk;
  int n_attempts = 0;  // so far, without a byte of progress
  int n_replaced = 0;  // connections that were too slow
  std::chrono::steady_clock::time_point not_before{};
};

class FileDownload {
 public:
  using Clock = std::chrono::steady_clock;
  enum class Phase {
    kPending,    // not begun
    kWaiting,    // for another process, which holds the lock
    kComparing,  // its target exists: hashed before anything is fetched
    kFetching,
    kFinished
  };
  enum class UrlState { kUnknown, kAsked, kKnown };

  FileDownload(const DownloadTask& task, size_t file_idx) : task_(task), file_idx_(file_idx) {}

  const DownloadTask& task() const { return task_; }
  size_t file_idx() const { return file_idx_; }
  const std::string& name() const { return task_.file.path; }
  PartialFile& partial() { return *partial_; }
  const PartialFile& partial() const { return *partial_; }
  bool has_digest() const { return task_.file.sha256 || !task_.file.git_sha1.empty(); }
  /// The header for a journal of this file with this size.
  JournalHeader header(int64_t size_bytes) const;
  int64_t total_bytes() const;

  /// Locks the partial file. False when another process has it.
  bool try_lock();
  /// Takes up what is on disk and is ready to fetch. Call with the lock held.
  void begin();

  /// The next request, when one may start now.
  std::optional<FileWork> next_work(Clock::time_point now, int64_t chunk_bytes, int jobs);
  /// Brings back what a request did not finish; `progressed`: it wrote something.
  void give_back(FileWork work);
  /// Everything not arrived is to be asked for again, from whatever the server gives.
  void forget_work();
  /// From here on everything is asked for in one stream.
  void turn_rangeless();
  /// When returned work may start, if there is any.
  std::optional<Clock::time_point> next_start() const;
  bool wants_requests();

  /// A URL has come; requests may start.
  void located(const DownloadUrl& url, int64_t now_ms);
  /// Where the next request goes. Nothing when the URL is unknown or has expired: ask `locate`.
  const RequestTarget* target(int64_t now_ms);
  /// An answer with bytes came from `from`: more requests may go there at once.
  void reached(const RequestTarget& from);
  /// The URL of generation `generation` is no longer good. Throws Error, with `reason`, when new
  /// ones have not been either.
  void expire(int generation, const std::string& reason);

  /// CRCs of the blocks that an earlier run left, to be compared while hashing.
  std::vector<std::optional<uint32_t>> crcs_to_compare() const;
  /// The block and what follows it of an earlier run is fetched again: how many blocks. Doubles
  /// from time to time, since a power cut takes a whole stretch.
  size_t distrust_from(size_t block_idx);
  /// The digest turned out wrong: distrusts what may be to blame. False when nothing is left to
  /// try.
  bool distrust_after_mismatch();

  Phase phase = Phase::kPending;
  UrlState url_state = UrlState::kUnknown;
  int generation = 0;  // of the URL
  int n_running = 0;   // requests
  int n_range_answers = 0;
  int n_whole_answers = 0;  // 200 to a request for a range, in a row
  int n_wrong_sizes = 0;
  int n_restarts = 0;
  int n_relocations = 0;      // without a byte since
  bool is_probed = false;     // at this URL
  bool is_confirmed = false;  // an answer of this run has fitted
  bool is_rangeless = false;
  bool has_waited = false;  // for another process
  bool told_verifying = false;
  int verify_round = 0;
  struct BadBlock {
    size_t first = 0;
    size_t n_blocks = 0;
  };
  std::optional<BadBlock> bad_block;  // being fetched again
  Clock::time_point next_lock_try{};
  Clock::time_point last_event{};
  int64_t last_event_bytes = -1;
  Digest digest;  // when finished

 private:
  const DownloadTask& task_;
  size_t file_idx_;
  std::unique_ptr<PartialFile> partial_;
  std::optional<RequestTarget> located_;
  std::optional<RequestTarget> direct_;  // where redirects led
  int64_t expires_at_ms_ = 0;
  std::deque<FileWork> returned_;
  std::vector<bool> from_before_;  // blocks of an earlier run
  size_t n_distrust_ = 1;
  friend class Downloader;
};

}  // namespace dsctl::registry
