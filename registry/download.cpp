// The download's loop: one thread drives all connections, writes what arrives and decides what
// comes next. Hashing and asking for URLs happen on threads of their own.
#include "registry/download.h"

#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <map>
#include <memory>

#include "registry/curl_transfer.h"
#include "registry/error.h"
#include "registry/file_download.h"
#include "registry/front_hasher.h"
#include "registry/locator.h"
#include "registry/rate_limit.h"
#include "registry/retry.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr int kMostRedirects = 10;
constexpr int kMostRestarts = 5;      // of a file that changes while it is fetched
constexpr int kMostWrongSizes = 3;    // answers about a file of another size
constexpr int kMostWholeAnswers = 3;  // 200 for a range, in a row, before ranges are given up
constexpr int kMostReplaced = 3;      // slow connections of one chunk
constexpr size_t kMostSwallowed = 64 << 10;  // of an error's body, to keep the connection
constexpr milliseconds kEventInterval{100};
constexpr milliseconds kLockInterval{200};

int64_t steady_ms(Clock::time_point time) {
  return std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count();
}

/// git's name of a file: SHA-1 over "blob SIZE\0" and the content.
std::string git_sha1_of(const fs::path& path) {
  const FileDescriptor file = open_file(path, O_RDONLY);
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> evp(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  const std::string head = "blob " + std::to_string(fs::file_size(path)) + '\0';
  bool works = evp && EVP_DigestInit_ex(evp.get(), EVP_sha1(), nullptr) == 1 &&
               EVP_DigestUpdate(evp.get(), head.data(), head.size()) == 1;
  std::vector<char> buffer(1 << 20);
  while (works) {
    const ssize_t n = ::read(file.get(), buffer.data(), buffer.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) throw_errno(path, "can't read");
    if (n == 0) break;
    works = EVP_DigestUpdate(evp.get(), buffer.data(), static_cast<size_t>(n)) == 1;
  }
  unsigned char bytes[EVP_MAX_MD_SIZE];
  unsigned int n_bytes = 0;
  if (!works || EVP_DigestFinal_ex(evp.get(), bytes, &n_bytes) != 1) {
    throw Error("sha1: the crypto library can't digest data");
  }
  std::string hex;
  for (unsigned int i = 0; i < n_bytes; ++i) {
    hex += "0123456789abcdef"[bytes[i] >> 4];
    hex += "0123456789abcdef"[bytes[i] & 15];
  }
  return hex;
}

}  // namespace

class Downloader {
 public:
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

namespace {

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

// Files

void Downloader::check_locks(Clock::time_point now) {
  for (const auto& file : files_) {
    if (file->phase == FileDownload::Phase::kWaiting && now >= file->next_lock_try) {
      activate(*file, now);
    }
  }
}

/// Begins with the next file in order; false when there is none.
bool Downloader::activate_next(Clock::time_point now) {
  size_t n_active = 0;
  for (const auto& file : files_) {
    if (file->phase == FileDownload::Phase::kFetching && !file->partial().is_complete()) ++n_active;
  }
  if (n_active >= slots_.size()) return false;
  for (const auto& file : files_) {
    if (file->phase == FileDownload::Phase::kPending) {
      activate(*file, now);
      return true;
    }
  }
  return false;
}

void Downloader::activate(FileDownload& file, Clock::time_point now) {
  if (!file.try_lock()) {
    file.next_lock_try = now + kLockInterval;
    if (file.phase != FileDownload::Phase::kWaiting) {
      file.phase = FileDownload::Phase::kWaiting;
      file.has_waited = true;
      tell(file, DownloadEventType::kWaiting,
           file.name() + ": another process is fetching it: waiting for it");
    }
    return;
  }
  if (settle_by_target(file)) return;
  file.begin();
  start_hash(file);
  tell(file, DownloadEventType::kStarted);
}

/// Whether the target is there already and decides: taken, or hashed first.
bool Downloader::settle_by_target(FileDownload& file) {
  const fs::path& target = file.task().target;
  struct stat status {};
  if (target.empty() || ::stat(target.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) {
    return false;
  }
  const int64_t expected = file.task().file.size_bytes;
  if (expected >= 0 && status.st_size != expected) return false;
  if (!file.has_waited && !file.has_digest()) return false;
  if (file.has_waited && file.task().file.sha256) {
    // Whoever held the lock has just verified it.
    file.partial().discard();
    file.digest = *file.task().file.sha256;
    file.partial_.reset();
    file.phase = FileDownload::Phase::kFinished;
    ++n_finished_;
    tell(file, DownloadEventType::kFinished);
    return true;
  }
  file.phase = FileDownload::Phase::kComparing;
  file.partial().open_other(target, status.st_size);
  start_hash(file);
  hasher_.advance(file.file_idx(), status.st_size);
  tell(file, DownloadEventType::kVerifying);
  return true;
}

void Downloader::start_hash(FileDownload& file) {
  const PartialFile& partial = file.partial();
  if (!partial.has_size()) return;
  FrontHasher::File hashed;
  hashed.fd = partial.fd();
  hashed.path = partial.path();
  hashed.size_bytes = partial.size_bytes();
  hashed.block_bytes = partial.block_bytes();
  hasher_.add(file.file_idx(), hashed, file.crcs_to_compare());
}

void Downloader::cancel_requests(FileDownload& file) {
  for (const auto& slot : slots_) {
    if (slot->file == &file) free_slot(*slot);
  }
  file.forget_work();
}

/// The remote file is another one than what we have begun with.
void Downloader::restart(FileDownload& file, int64_t size_bytes) {
  cancel_requests(file);
  if (++file.n_restarts > kMostRestarts) {
    give_up(file, "changed " + std::to_string(kMostRestarts) + " times while it was fetched");
  }
  hasher_.remove(file.file_idx());
  file.partial().start_anew(file.header(size_bytes));
  file.from_before_.assign(file.partial().blocks().size(), false);
  file.bad_block.reset();
  file.is_probed = false;
  start_hash(file);
  tell(file, DownloadEventType::kRetry,
       file.name() + ": changed while it was fetched: starting anew");
}

void Downloader::take_hashes() {
  for (FrontHasher::Result& result : hasher_.take_results()) {
    FileDownload& file = *files_[result.id];
    if (result.error) std::rethrow_exception(result.error);
    if (result.digest) {
      check_digest(file, *result.digest);
    } else if (file.phase == FileDownload::Phase::kComparing) {
      fetch_instead(file);  // somebody shortened it meanwhile
    } else if (result.bad_block) {
      const size_t n_blocks = file.distrust_from(*result.bad_block);
      file.bad_block = FileDownload::BadBlock{*result.bad_block, n_blocks};
      tell(file, DownloadEventType::kRetry,
           file.name() + ": bytes from " +
               std::to_string(static_cast<int64_t>(*result.bad_block) *
                              file.partial().block_bytes()) +
               " are not those that arrived: fetching them again");
    }
  }
}

std::string Downloader::mismatch(const FileDownload& file, const Digest& digest) const {
  const RemoteFile& remote = file.task().file;
  if (remote.sha256 && digest != *remote.sha256) {
    return "sha256 is " + digest.hex() + ", expected " + remote.sha256->hex();
  }
  if (remote.git_sha1.empty()) return "";
  const std::string sha1 = git_sha1_of(file.partial().path());
  return sha1 == remote.git_sha1 ? "" : "git's sha1 is " + sha1 + ", expected " + remote.git_sha1;
}

/// The target that was compared is something else.
void Downloader::fetch_instead(FileDownload& file) {
  hasher_.remove(file.file_idx());
  file.partial().close_other();
  file.begin();
  start_hash(file);
  tell(file, DownloadEventType::kStarted);
}

void Downloader::check_digest(FileDownload& file, const Digest& digest) {
  const std::string wrong = mismatch(file, digest);
  hasher_.remove(file.file_idx());
  if (file.phase == FileDownload::Phase::kComparing) {
    if (wrong.empty()) return finish(file, digest);
    fetch_instead(file);
    return;
  }
  if (wrong.empty()) {
    finish(file, digest);
    return;
  }
  if (!file.distrust_after_mismatch()) {
    file.partial().discard();
    file.partial_.reset();
    throw Error(file.name() + ": " + wrong +
                ", also after everything was fetched a second time; the partial file is removed");
  }
  file.told_verifying = false;
  start_hash(file);
  tell(file, DownloadEventType::kRetry,
       file.name() + ": " + wrong +
           (file.verify_round == 1 ? ": looking for what is to blame" : ": fetching it once more"));
}

void Downloader::finish(FileDownload& file, const Digest& digest) {
  const bool was_there = file.phase == FileDownload::Phase::kComparing;
  file.digest = digest;
  if (was_there) {
    file.partial().discard();
  } else {
    file.partial().finish(file.task().target);
  }
  file.phase = FileDownload::Phase::kFinished;
  ++n_finished_;
  tell(file, DownloadEventType::kFinished);
  file.partial_.reset();  // and with it the lock
}

void Downloader::advance_hashes() {
  for (const auto& file : files_) {
    if (file->phase != FileDownload::Phase::kFetching) continue;
    PartialFile& partial = file->partial();
    partial.flush_journal();
    if (!partial.has_size()) continue;
    const int64_t front = partial.front_bytes();
    if (file->bad_block) {
      const int64_t begin = static_cast<int64_t>(file->bad_block->first) * partial.block_bytes();
      if (front <= begin) continue;
      hasher_.repaired(file->file_idx(), front, file->bad_block->n_blocks);
      file->bad_block.reset();
    }
    hasher_.advance(file->file_idx(), front);
    if (partial.is_complete() && !file->told_verifying) {
      file->told_verifying = true;
      tell(*file, DownloadEventType::kVerifying);
    }
  }
}

int64_t Downloader::done_bytes(const FileDownload& file) const {
  if (file.phase == FileDownload::Phase::kFinished) return std::max<int64_t>(0, file.total_bytes());
  if (!file.partial_) return 0;
  int64_t bytes = file.partial().arrived_bytes();
  for (const auto& slot : slots_) {
    if (slot->file != &file || !slot->is_judged) continue;
    const int64_t block = file.partial().block_bytes();
    bytes += block > 0 ? slot->work.chunk.position % block : slot->work.chunk.position;
  }
  const int64_t total = file.total_bytes();
  return total >= 0 ? std::min(bytes, total) : bytes;
}

void Downloader::tell(FileDownload& file, DownloadEventType type, std::string message) {
  if (!options_.on_event) return;
  file.last_event = Clock::now();
  file.last_event_bytes = done_bytes(file);
  DownloadEvent event;
  event.type = type;
  event.file_idx = file.file_idx();
  event.done_bytes = file.last_event_bytes;
  event.total_bytes = file.total_bytes();
  event.fetched_bytes = fetched_bytes_;
  event.message = std::move(message);
  options_.on_event(event);
}

void Downloader::tell_progress(Clock::time_point now) {
  if (!options_.on_event) return;
  for (const auto& file : files_) {
    if (file->phase != FileDownload::Phase::kFetching) continue;
    if (now - file->last_event < kEventInterval) continue;
    if (done_bytes(*file) != file->last_event_bytes) tell(*file, DownloadEventType::kProgress);
  }
}

// Requests

std::string Downloader::origin_key(const RequestTarget& target) const {
  return target.origin.scheme + "://" + target.origin.host + ":" +
         std::to_string(target.origin.port);
}

void Downloader::take_urls(Clock::time_point now) {
  for (const Locator::Result& result : locator_.take_results()) {
    FileDownload& file = *files_[result.file_idx];
    if (result.error) std::rethrow_exception(result.error);
    file.located(*result.url, steady_ms(now));
  }
}

void Downloader::start_requests(Clock::time_point now) {
  int n_busy = 0;
  for (const auto& slot : slots_)
    n_busy += slot->file != nullptr;
  for (const auto& slot : slots_) {
    if (n_busy >= n_allowed_) return;
    if (slot->file) continue;
    if (!start_one(*slot, now)) return;
    ++n_busy;
  }
}

/// Gives an idle connection the first work there is, in the order of the files.
bool Downloader::start_one(Slot& slot, Clock::time_point now) {
  do {
    for (const auto& file : files_) {
      if (!file->wants_requests()) continue;
      const RequestTarget* const target = file->target(steady_ms(now));
      if (!target) {
        if (file->url_state == FileDownload::UrlState::kUnknown) {
          file->url_state = FileDownload::UrlState::kAsked;
          locator_.ask(file->file_idx(), file->task().file);
        }
        continue;
      }
      const auto held = held_.find(origin_key(*target));
      if (held != held_.end() && held->second > now) continue;
      auto work = file->next_work(now, options_.chunk_bytes, options_.jobs);
      if (!work) continue;
      slot.file = file.get();
      slot.work = std::move(*work);
      slot.target = *target;
      slot.generation = file->generation;
      slot.n_redirects = 0;
      ++file->n_running;
      begin_request(slot, now);
      return true;
    }
  } while (activate_next(now));
  return false;
}

void Downloader::begin_request(Slot& slot, Clock::time_point now) {
  slot.is_judged = false;
  slot.is_sizeless = false;
  slot.is_paused = false;
  slot.is_changed = false;
  slot.is_wrong_size = false;
  slot.n_swallowed = 0;
  slot.failure.clear();
  slot.error = nullptr;
  slot.begin = slot.work.chunk.position;
  slot.last_byte = slot.window_begin = now;
  slot.window_position = slot.begin;

  CurlTransfer::Request request;
  // One connection for one request: many of them fill a link better than streams inside one.
  request.http_version = CURL_HTTP_VERSION_1_1;
  request.buffer_bytes = 512 << 10;
  if (rate_.is_limited()) {
    request.buffer_bytes = std::clamp<long>(
        static_cast<long>(options_.limit_bytes_per_second / 100), 4 << 10, 256 << 10);
  }
  if (!wants_everything(slot)) {
    request.range = std::to_string(slot.begin) + "-" + std::to_string(slot.work.chunk.end - 1);
  }
  slot.transfer.prepare(slot.target, request, [this, &slot](std::span<const std::byte> data) {
    return on_body(slot, data);
  });
  set_.add(slot.transfer, &slot);
}

/// libcurl's callback: no exception may leave it.
size_t Downloader::on_body(Slot& slot, std::span<const std::byte> data) {
  try {
    if (!slot.is_judged) judge(slot);
    if (!slot.failure.empty() || slot.is_changed || slot.is_wrong_size) return 0;
    const bool has_bytes =
        slot.verdict.kind == Verdict::kRange || slot.verdict.kind == Verdict::kWhole;
    if (!has_bytes) {
      slot.n_swallowed += data.size();
      return slot.n_swallowed > kMostSwallowed ? 0 : data.size();
    }
    const auto now = Clock::now();
    if (!rate_.allows(now)) {
      slot.is_paused = true;
      return CURL_WRITEFUNC_PAUSE;
    }
    slot.last_byte = now;
    rate_.take(static_cast<int64_t>(data.size()));
    fetched_bytes_ += static_cast<int64_t>(data.size());
    return store(slot, data);
  } catch (...) {
    slot.error = std::current_exception();
    return 0;
  }
}

size_t Downloader::store(Slot& slot, std::span<const std::byte> data) {
  PartialFile& partial = slot.file->partial();
  Chunk& chunk = slot.work.chunk;
  if (slot.is_sizeless) {
    partial.write_raw(chunk.position, data);
    chunk.position += static_cast<int64_t>(data.size());
    return data.size();
  }
  // A longer body is cut off where the chunk ends; that ends the connection too.
  const auto n =
      static_cast<size_t>(std::min<int64_t>(chunk.missing(), static_cast<int64_t>(data.size())));
  if (slot.work.kind == FileWork::Kind::kStream) {
    partial.write_missing(chunk, data.first(n), slot.epoch);
  } else {
    partial.write(chunk, data.first(n), slot.epoch);
  }
  slot.file->n_relocations = 0;
  return n;
}

void Downloader::judge(Slot& slot) {
  slot.is_judged = true;
  slot.verdict =
      judge_response(slot.transfer.head(), slot.begin,
                     wants_everything(slot) ? -1 : slot.work.chunk.end, std::time(nullptr));
  if (slot.verdict.kind == Verdict::kRange || slot.verdict.kind == Verdict::kWhole) accept(slot);
}

/// Decides whether the bytes of a 206 or 200 are those that are wanted; sets `failure`,
/// `is_changed` or `is_wrong_size` when not.
void Downloader::accept(Slot& slot) {
  FileDownload& file = *slot.file;
  if (slot.verdict.kind == Verdict::kRange) {
    ++file.n_range_answers;
    file.n_whole_answers = 0;
    if (slot.work.kind == FileWork::Kind::kStream) {
      slot.failure = "answers HTTP 206 to a request for the whole file";
      return;
    }
    if (!accept_size(slot) || !accept_validator(slot)) return;
  } else {
    if (!accept_size(slot) || !accept_validator(slot) || !accept_whole(slot)) return;
  }
  file.is_confirmed = true;
  file.reached(slot.target);
}

/// Compares, or learns, the size.
bool Downloader::accept_size(Slot& slot) {
  FileDownload& file = *slot.file;
  PartialFile& partial = file.partial();
  const int64_t total = slot.verdict.total_bytes;
  if (partial.has_size()) {
    slot.is_wrong_size = total >= 0 && total != partial.size_bytes();
    return !slot.is_wrong_size;
  }
  if (slot.verdict.kind == Verdict::kWhole && total < 0) {
    slot.is_sizeless = true;
    return true;
  }
  if (total < 0) {
    // A range of a file of unknown length: only the whole of it shows where it ends.
    file.turn_rangeless();
    slot.failure = "answers with a range without telling the file's size";
    return false;
  }
  partial.start_anew(file.header(total));
  file.from_before_.assign(partial.blocks().size(), false);
  start_hash(file);
  if (slot.verdict.kind == Verdict::kRange) {
    // The probe becomes an ordinary chunk, of the whole blocks it covers.
    slot.work.kind = FileWork::Kind::kRange;
    slot.work.chunk = partial.assign(slot.work.chunk.end).value_or(Chunk());
  }
  return true;
}

bool Downloader::accept_validator(Slot& slot) {
  FileDownload& file = *slot.file;
  PartialFile& partial = file.partial();
  if (slot.is_sizeless || slot.verdict.validator.empty()) {
    slot.epoch = partial.epoch();
    // Nothing says whether an earlier run's bytes are of the same file.
    slot.is_changed = !slot.is_sizeless && !file.has_digest() && partial.validator().empty() &&
                      !file.is_confirmed && partial.arrived_bytes() > 0;
    return !slot.is_changed;
  }
  // With a digest the end tells, and only what came under another validator is under suspicion:
  // the servers behind one name don't always agree about validators.
  const bool differs = partial.validator() != slot.verdict.validator;
  const bool is_first = partial.validator().empty() && partial.arrived_bytes() == 0;
  slot.is_changed = differs && !is_first && !file.has_digest();
  if (slot.is_changed) return false;
  slot.epoch = partial.see_validator(slot.verdict.validator);
  return true;
}

/// A 200: the body is the whole file, whatever was asked for.
bool Downloader::accept_whole(Slot& slot) {
  FileDownload& file = *slot.file;
  if (slot.work.kind == FileWork::Kind::kStream) return true;
  if (slot.is_sizeless) {
    file.turn_rangeless();
    slot.work.chunk = {.begin = 0, .end = INT64_MAX, .position = 0, .crc = 0};
    return true;
  }
  if ((file.n_range_answers == 0 || file.is_rangeless) && file.n_running == 1) {
    // The server knows no ranges. This very answer is the stream, if it is taken from its start.
    file.turn_rangeless();
    file.partial().assign_all();
    slot.work.kind = FileWork::Kind::kStream;
    slot.work.chunk = {.begin = 0, .end = file.partial().size_bytes(), .position = 0, .crc = 0};
    slot.begin = 0;
    return true;
  }
  if (slot.begin == 0) return true;  // right as far as the chunk goes
  slot.failure = "answers HTTP 200 with the whole file to a request for a range";
  if (++file.n_whole_answers >= kMostWholeAnswers) file.turn_rangeless();
  return false;
}

void Downloader::end_requests() {
  while (const auto done = set_.next_done()) {
    end_request(*static_cast<Slot*>(done->data), done->code, Clock::now());
  }
}

void Downloader::free_slot(Slot& slot) {
  set_.remove(slot.transfer);
  --slot.file->n_running;
  slot.file = nullptr;
  slot.is_paused = false;
}

void Downloader::end_request(Slot& slot, CURLcode code, Clock::time_point now) {
  if (slot.error) std::rethrow_exception(slot.error);
  FileDownload& file = *slot.file;
  if (!slot.is_judged && (code == CURLE_OK || slot.transfer.head().status() >= 300)) {
    judge(slot);  // an answer without a body
  }
  if (slot.is_changed) {
    const int64_t total = slot.verdict.total_bytes;
    restart(file, total >= 0 ? total : file.partial().size_bytes());
    return;
  }
  const bool has_bytes =
      slot.is_judged && slot.failure.empty() && !slot.is_wrong_size &&
      (slot.verdict.kind == Verdict::kRange || slot.verdict.kind == Verdict::kWhole);
  Chunk& chunk = slot.work.chunk;
  if (has_bytes && slot.is_sizeless && code == CURLE_OK) {
    const int64_t size_bytes = chunk.position;
    free_slot(slot);
    file.partial().declare_size(file.header(size_bytes));
    file.from_before_.assign(file.partial().blocks().size(), false);
    start_hash(file);
    return;
  }
  if (has_bytes && chunk.missing() == 0) {
    const std::chrono::duration<double> took = now - slot.window_begin;
    const auto n_bytes = static_cast<double>(chunk.position - slot.window_position);
    if (took.count() > 0) {
      const double rate = n_bytes / took.count();
      usual_rate_ = usual_rate_ > 0 ? usual_rate_ * 0.8 + rate * 0.2 : rate;
    }
    n_allowed_ = std::min(n_allowed_ + 1, std::max(1, options_.jobs));
    free_slot(slot);
    return;
  }
  if (has_bytes) {
    end_failed(slot, code == CURLE_OK ? "the answer ended early" : slot.transfer.describe(code),
               now);
    return;
  }
  if (!slot.is_judged && code != CURLE_OK && slot.transfer.is_hopeless(code)) {
    give_up(file, slot.transfer.describe(code));
  }
  if (slot.is_judged && slot.failure.empty() && slot.verdict.kind == Verdict::kRedirect) {
    if (++slot.n_redirects > kMostRedirects) {
      give_up(file, printable_url(slot.target.url) + ": more than " +
                        std::to_string(kMostRedirects) + " redirects");
    }
    slot.target = slot.target.redirected(slot.verdict.location, slot.transfer.peer_is_public());
    set_.remove(slot.transfer);
    begin_request(slot, now);
    return;
  }
  const std::string where = printable_url(slot.target.url) + ": ";
  if (!slot.is_judged) return end_failed(slot, slot.transfer.describe(code), now);
  if (!slot.failure.empty()) return end_failed(slot, where + slot.failure, now);
  const bool is_unsatisfiable = slot.verdict.kind == Verdict::kUnsatisfiable;
  if (is_unsatisfiable && !file.partial().has_size() && slot.verdict.total_bytes <= 0) {
    // No range of an empty file is satisfiable.
    free_slot(slot);
    file.partial().start_anew(file.header(0));
    start_hash(file);
    return;
  }
  if (slot.is_wrong_size ||
      (is_unsatisfiable && file.partial().has_size() && slot.verdict.total_bytes >= 0 &&
       slot.verdict.total_bytes != file.partial().size_bytes())) {
    const int64_t total = slot.verdict.total_bytes;
    const std::string reason = where + "has " + std::to_string(total) + " bytes, expected " +
                               std::to_string(file.partial().size_bytes());
    if (file.task().file.size_bytes < 0 && !file.has_digest()) return restart(file, total);
    if (++file.n_wrong_sizes > kMostWrongSizes) give_up(file, reason);
    return end_failed(slot, reason, now);
  }
  if (slot.verdict.kind == Verdict::kExpired) {
    const std::string reason = where + slot.verdict.reason;
    try {
      file.expire(slot.generation, reason);
    } catch (const Error&) {
      give_up(file, reason);
    }
    return_work(slot, reason, milliseconds(0));
    return;
  }
  if (slot.verdict.kind == Verdict::kLater) {
    const milliseconds delay = backoff_.delay(slot.work.n_attempts + 1, slot.verdict.retry_after);
    slow_down(slot.target, delay, now);
  }
  end_failed(slot, where + slot.verdict.reason, now);
}

/// A server asked to be left alone for a while: no new request to it, and fewer at a time.
void Downloader::slow_down(const RequestTarget& target, milliseconds delay, Clock::time_point now) {
  auto& until = held_[origin_key(target)];
  until = std::max(until, now + delay);
  // One wave of refusals is one reason.
  if (now - last_slow_down_ < std::max(delay, milliseconds(1000))) return;
  last_slow_down_ = now;
  n_allowed_ = std::max(1, n_allowed_ / 2);
}

/// The request brought less than it should: the rest is asked for again, at once where something
/// came, later and later where nothing does.
void Downloader::end_failed(Slot& slot, const std::string& reason, Clock::time_point now) {
  FileDownload& file = *slot.file;
  const bool progressed = slot.is_judged && slot.work.chunk.position > slot.begin;
  if (progressed) {
    slot.work.n_attempts = 0;
    return return_work(slot, reason, milliseconds(0));
  }
  if (++slot.work.n_attempts >= options_.max_attempts) {
    give_up(file,
            reason + "; gave up after " + std::to_string(options_.max_attempts) + " attempts");
  }
  std::optional<milliseconds> asked;
  if (slot.is_judged) asked = slot.verdict.retry_after;
  slot.work.not_before = now + backoff_.delay(slot.work.n_attempts, asked);
  return_work(slot, reason, std::chrono::ceil<milliseconds>(slot.work.not_before - now));
}

void Downloader::return_work(Slot& slot, const std::string& reason, milliseconds delay) {
  FileDownload& file = *slot.file;
  FileWork work = std::move(slot.work);
  free_slot(slot);
  file.give_back(std::move(work));
  if (Clock::now() - file.last_event < kEventInterval && delay.count() == 0) return;
  tell(file, DownloadEventType::kRetry,
       file.name() + ": " + reason +
           (delay.count() > 0 ? "; again in " + std::to_string(delay.count()) + " ms" : ""));
}

void Downloader::give_up(const FileDownload& file, const std::string& reason) const {
  throw Error(file.name() + ": " + reason + "; what arrived stays in " +
              file.task().partial.string());
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
