// What becomes of a file: begun, hashed, compared, finished, told of.
#include <fcntl.h>
#include <openssl/evp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>

#include "registry/downloader.h"
#include "registry/error.h"
#include "registry/file_io.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;

constexpr int kMostRestarts = 5;  // of a file that changes while it is fetched
constexpr milliseconds kLockInterval{200};

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

}  // namespace dsctl::registry
