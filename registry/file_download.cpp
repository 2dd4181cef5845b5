#include "registry/file_download.h"

#include <algorithm>

#include "registry/error.h"

namespace dsctl::registry {
namespace {

constexpr int64_t kProbeBytes = 4 << 20;
constexpr int64_t kSmallestChunk = 1 << 20;
constexpr int kMostRelocations = 4;

}  // namespace

JournalHeader FileDownload::header(int64_t size_bytes) const {
  return {.size_bytes = size_bytes, .sha256 = task_.file.sha256, .git_sha1 = task_.file.git_sha1};
}

int64_t FileDownload::total_bytes() const {
  if (partial_ && partial_->has_size()) return partial_->size_bytes();
  return task_.file.size_bytes;
}

bool FileDownload::try_lock() {
  partial_ = PartialFile::try_open(task_.partial);
  return partial_ != nullptr;
}

void FileDownload::begin() {
  partial_->take_up(header(task_.file.size_bytes));
  from_before_.resize(partial_->blocks().size());
  for (size_t b = 0; b < from_before_.size(); ++b) {
    from_before_[b] = partial_->blocks()[b].state == BlockState::kArrived;
  }
  phase = Phase::kFetching;
}

bool FileDownload::wants_requests() {
  if (phase != Phase::kFetching) return false;
  if (!partial_->has_size()) return n_running == 0;
  if (is_rangeless) return n_running == 0 && !partial_->is_complete();
  if (!is_probed && n_running > 0) return false;
  return !returned_.empty() || partial_->has_missing();
}

std::optional<FileWork> FileDownload::next_work(Clock::time_point now, int64_t chunk_bytes,
                                                int jobs) {
  if (!wants_requests()) return std::nullopt;
  const auto ready = std::find_if(returned_.begin(), returned_.end(),
                                  [&](const FileWork& work) { return work.not_before <= now; });
  if (ready != returned_.end()) {
    const FileWork work = *ready;
    returned_.erase(ready);
    if (work.kind == FileWork::Kind::kStream) partial_->assign_all();
    return work;
  }
  FileWork work;
  if (!partial_->has_size()) {
    if (!returned_.empty()) return std::nullopt;
    work.kind = FileWork::Kind::kProbe;
    work.chunk.end = kProbeBytes;
    return work;
  }
  if (is_rangeless) {
    if (!returned_.empty()) return std::nullopt;
    work.kind = FileWork::Kind::kStream;
    work.chunk.end = partial_->size_bytes();
    partial_->assign_all();
    return work;
  }
  // Large at first, small in the end, so that all connections finish together and the hash, which
  // follows the slowest of them, has little left to do.
  const int64_t fair = partial_->unassigned_bytes() / (2 * std::max(1, jobs));
  const auto chunk =
      partial_->assign(std::clamp(fair, std::min(kSmallestChunk, chunk_bytes), chunk_bytes));
  if (!chunk) return std::nullopt;
  work.chunk = *chunk;
  return work;
}

void FileDownload::give_back(FileWork work) {
  if (work.kind == FileWork::Kind::kStream) {
    partial_->unassign(0, partial_->size_bytes());
    work.chunk = {.begin = 0, .end = partial_->size_bytes(), .position = 0, .crc = 0};
  }
  if (work.kind == FileWork::Kind::kProbe) {
    work.chunk = {.begin = 0, .end = kProbeBytes, .position = 0, .crc = 0};
  }
  if (is_rangeless && work.kind == FileWork::Kind::kRange) {
    partial_->unassign(work.chunk.begin, work.chunk.end);
    return;
  }
  returned_.push_back(std::move(work));
}

void FileDownload::forget_work() {
  returned_.clear();
  if (partial_->has_size()) partial_->unassign(0, partial_->size_bytes());
}

void FileDownload::turn_rangeless() {
  is_rangeless = true;
  for (const FileWork& work : std::exchange(returned_, {})) {
    partial_->unassign(work.chunk.begin, work.chunk.end);
  }
}

std::optional<FileDownload::Clock::time_point> FileDownload::next_start() const {
  std::optional<Clock::time_point> next;
  for (const FileWork& work : returned_) {
    if (!next || work.not_before < *next) next = work.not_before;
  }
  return next;
}

void FileDownload::located(const DownloadUrl& url, int64_t now_ms) {
  located_ = RequestTarget::of(url.url, url.headers);
  direct_.reset();
  expires_at_ms_ = url.expires_at_ms;
  if (expires_at_ms_ > 0 && expires_at_ms_ <= now_ms) {
    // Expired on arrival: clocks differ. It is tried, the server knows better.
    expires_at_ms_ = 0;
  }
  url_state = UrlState::kKnown;
  is_probed = false;
  ++generation;
}

const RequestTarget* FileDownload::target(int64_t now_ms) {
  if (url_state != UrlState::kKnown) return nullptr;
  if (expires_at_ms_ > 0 && now_ms >= expires_at_ms_) {
    url_state = UrlState::kUnknown;
    return nullptr;
  }
  return direct_ ? &*direct_ : &*located_;
}

void FileDownload::reached(const RequestTarget& from) {
  if (!is_probed) direct_ = from;
  is_probed = true;
}

void FileDownload::expire(int of_generation, const std::string& reason) {
  if (of_generation != generation) return;  // told already by another connection
  if (++n_relocations > kMostRelocations) throw Error(reason);
  ++generation;
  is_probed = false;
  const bool was_redirected = direct_ && direct_->url != located_->url;
  direct_.reset();
  if (!was_redirected) url_state = UrlState::kUnknown;
}

std::vector<std::optional<uint32_t>> FileDownload::crcs_to_compare() const {
  std::vector<std::optional<uint32_t>> crcs(from_before_.size());
  for (size_t b = 0; b < crcs.size(); ++b) {
    const Block& block = partial_->blocks()[b];
    if (from_before_[b] && block.state == BlockState::kArrived) crcs[b] = block.crc;
  }
  return crcs;
}

size_t FileDownload::distrust_from(size_t block_idx) {
  constexpr size_t kMostBytes = 64 << 20;
  const size_t n_most =
      std::max<size_t>(1, kMostBytes / static_cast<size_t>(partial_->block_bytes()));
  size_t past = block_idx + 1;
  while (past < from_before_.size() && past - block_idx < n_distrust_ && from_before_[past] &&
         partial_->blocks()[past].state == BlockState::kArrived) {
    ++past;
  }
  n_distrust_ = std::min(n_distrust_ * 2, n_most);
  for (size_t b = block_idx; b < past; ++b)
    from_before_[b] = false;
  partial_->distrust(block_idx, past - block_idx);
  return past - block_idx;
}

bool FileDownload::distrust_after_mismatch() {
  const size_t n_blocks = partial_->blocks().size();
  if (++verify_round > 2) return false;
  if (verify_round == 2) {
    if (n_blocks > 0) partial_->distrust(0, n_blocks);
    from_before_.assign(n_blocks, false);
    return true;
  }
  // What came under another validator, or was never seen arriving, goes; the rest is compared.
  from_before_.assign(n_blocks, true);
  for (size_t b = 0; b < n_blocks; ++b) {
    const Block& block = partial_->blocks()[b];
    if (block.state == BlockState::kArrived && block.epoch == partial_->epoch()) continue;
    size_t past = b + 1;
    while (past < n_blocks && (partial_->blocks()[past].state != BlockState::kArrived ||
                               partial_->blocks()[past].epoch != partial_->epoch())) {
      ++past;
    }
    partial_->distrust(b, past - b);
    b = past - 1;
  }
  return true;
}

}  // namespace dsctl::registry
