#include "registry/partial_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "registry/crc32c.h"
#include "registry/error.h"

namespace dsctl::registry {
namespace {

namespace fs = std::filesystem;

fs::path journal_path(const fs::path& partial) {
  return partial.string() + ".journal";
}

bool has_arrived(const Block& block) {
  return block.state == BlockState::kArrived || block.state == BlockState::kUnverified;
}

void write_at(int fd, std::span<const std::byte> data, int64_t offset, const fs::path& path) {
  while (!data.empty()) {
    const ssize_t n = ::pwrite(fd, data.data(), data.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
      throw Error(path.string() + ": can't write: " + std::strerror(errno) +
                  "; what arrived stays: make room and repeat the command to go on");
    }
    if (n < 0) throw_errno(path, "can't write");
    data = data.subspan(static_cast<size_t>(n));
    offset += n;
  }
}

}  // namespace

std::unique_ptr<PartialFile> PartialFile::try_open(const fs::path& path) {
  create_directories_synced(path.parent_path().empty() ? fs::path(".") : path.parent_path());
  auto journal = ChunkJournal::try_open(journal_path(path));
  if (!journal) return nullptr;
  return std::unique_ptr<PartialFile>(new PartialFile(path, std::move(*journal)));
}

void PartialFile::take_up(const JournalHeader& wanted) {
  file_ = open_file(path_, O_RDWR | O_CREAT | O_NOFOLLOW);
  struct stat status {};
  if (::fstat(file_.get(), &status) != 0) throw_errno(path_, "can't stat");
  if (!S_ISREG(status.st_mode)) throw Error(path_.string() + ": is no regular file");

  auto content = journal_.load();
  JournalHeader expected = wanted;
  if (content && expected.size_bytes < 0) expected.size_bytes = content->header.size_bytes;
  if (content && content->header == expected) {
    header_ = content->header;
    block_bytes_ = block_bytes_for(header_.size_bytes);
    blocks_ = std::move(content->blocks);
    validators_ = std::move(content->validators);
    epoch_ = validators_.empty() ? uint8_t{0} : static_cast<uint8_t>(validators_.size() - 1);
    count_states();
    return;
  }
  if (wanted.size_bytes < 0) return;
  // Another program's partial file is a prefix. Without a digest nobody could tell whether of this.
  const int64_t prefix = status.st_size;
  const bool is_prefix = !content && (wanted.sha256 || !wanted.git_sha1.empty()) && prefix > 0 &&
                         prefix <= wanted.size_bytes;
  if (!is_prefix) {
    start_anew(wanted);
    return;
  }
  header_ = wanted;
  reset_blocks();
  const size_t n_blocks =
      prefix == wanted.size_bytes ? blocks_.size() : static_cast<size_t>(prefix / block_bytes_);
  for (size_t b = 0; b < n_blocks; ++b)
    blocks_[b].state = BlockState::kUnverified;
  count_states();
  journal_.restart(header_);
  if (n_blocks > 0) journal_.append(journal_unverified_record(0, n_blocks));
}

void PartialFile::open_other(const fs::path& other, int64_t size_bytes) {
  other_ = other;
  file_ = open_file(other, O_RDONLY);
  header_.size_bytes = size_bytes;
  block_bytes_ = block_bytes_for(size_bytes);
}

void PartialFile::close_other() {
  other_.clear();
  file_.reset();
  header_.size_bytes = -1;
  block_bytes_ = 0;
}

void PartialFile::start_anew(const JournalHeader& header) {
  // The bytes go first: a crash in between leaves a journal whose blocks fail their comparison.
  if (::ftruncate(file_.get(), 0) != 0) throw_errno(path_, "can't empty");
  header_ = header;
  reset_blocks();
  count_states();
  journal_.restart(header_);
}

void PartialFile::reset_blocks() {
  block_bytes_ = block_bytes_for(header_.size_bytes);
  blocks_.assign(block_count_for(header_.size_bytes), Block());
  validators_.clear();
  epoch_ = 0;
  runs_.clear();
  records_.clear();
}

void PartialFile::count_states() {
  n_arrived_ = 0;
  unassigned_blocks_ = 0;
  front_block_ = 0;
  missing_block_ = 0;
  for (const Block& block : blocks_) {
    if (has_arrived(block)) ++n_arrived_;
    if (block.state == BlockState::kMissing) ++unassigned_blocks_;
  }
}

void PartialFile::set_state(size_t block_idx, Block block) {
  Block& old = blocks_[block_idx];
  if (has_arrived(old)) --n_arrived_;
  if (old.state == BlockState::kMissing) --unassigned_blocks_;
  old = block;
  if (has_arrived(block)) ++n_arrived_;
  if (block.state == BlockState::kMissing) {
    ++unassigned_blocks_;
    missing_block_ = std::min(missing_block_, block_idx);
    front_block_ = std::min(front_block_, block_idx);
  }
}

uint8_t PartialFile::see_validator(std::string_view validator) {
  constexpr size_t kMostEpochs = 255;
  const auto known = std::find(validators_.begin(), validators_.end(), validator);
  if (known != validators_.end() || validators_.size() >= kMostEpochs) {
    if (known != validators_.end()) epoch_ = static_cast<uint8_t>(known - validators_.begin());
    return epoch_;
  }
  validators_.emplace_back(validator);
  epoch_ = static_cast<uint8_t>(validators_.size() - 1);
  flush_journal();
  records_ += journal_validator_record(validator);
  return epoch_;
}

bool PartialFile::has_missing() {
  while (missing_block_ < blocks_.size() && blocks_[missing_block_].state != BlockState::kMissing) {
    ++missing_block_;
  }
  return missing_block_ < blocks_.size();
}

std::optional<Chunk> PartialFile::assign(int64_t max_bytes) {
  if (!has_missing()) return std::nullopt;
  const size_t first = missing_block_;
  const auto n_most = static_cast<size_t>(std::max<int64_t>(1, max_bytes / block_bytes_));
  size_t past = first;
  while (past < blocks_.size() && past - first < n_most &&
         blocks_[past].state == BlockState::kMissing) {
    set_state(past++, {0, BlockState::kAssigned, 0});
  }
  Chunk chunk;
  chunk.begin = chunk.position = static_cast<int64_t>(first) * block_bytes_;
  chunk.end = std::min(static_cast<int64_t>(past) * block_bytes_, header_.size_bytes);
  return chunk;
}

void PartialFile::assign_all() {
  for (size_t b = 0; b < blocks_.size(); ++b) {
    if (blocks_[b].state == BlockState::kMissing) set_state(b, {0, BlockState::kAssigned, 0});
  }
}

void PartialFile::unassign(int64_t begin, int64_t end) {
  if (!has_size() || block_bytes_ == 0) return;
  const auto first = static_cast<size_t>(begin / block_bytes_);
  for (size_t b = first; b < blocks_.size() && static_cast<int64_t>(b) * block_bytes_ < end; ++b) {
    if (blocks_[b].state == BlockState::kAssigned) set_state(b, {});
  }
}

int64_t PartialFile::block_end(int64_t position) const {
  return std::min((position / block_bytes_ + 1) * block_bytes_, header_.size_bytes);
}

void PartialFile::write(Chunk& chunk, std::span<const std::byte> data, uint8_t epoch) {
  write_at(file_.get(), data, chunk.position, path_);
  while (!data.empty()) {
    const int64_t end = block_end(chunk.position);
    const auto n = static_cast<size_t>(
        std::min<int64_t>(end - chunk.position, static_cast<int64_t>(data.size())));
    chunk.crc = crc32c(chunk.crc, data.first(n));
    data = data.subspan(n);
    const auto block_idx = static_cast<size_t>(chunk.position / block_bytes_);
    chunk.position += static_cast<int64_t>(n);
    if (chunk.position < end) continue;
    set_state(block_idx, {chunk.crc, BlockState::kArrived, epoch});
    const bool goes_on = !runs_.empty() && runs_.back().epoch == epoch &&
                         runs_.back().first_block + runs_.back().crcs.size() == block_idx;
    if (!goes_on) runs_.push_back({block_idx, epoch, {}});
    runs_.back().crcs.push_back(chunk.crc);
    chunk.crc = 0;
  }
}

void PartialFile::write_missing(Chunk& chunk, std::span<const std::byte> data, uint8_t epoch) {
  while (!data.empty()) {
    const auto n = static_cast<size_t>(std::min<int64_t>(block_end(chunk.position) - chunk.position,
                                                         static_cast<int64_t>(data.size())));
    if (has_arrived(blocks_[static_cast<size_t>(chunk.position / block_bytes_)])) {
      chunk.position += static_cast<int64_t>(n);
    } else {
      write(chunk, data.first(n), epoch);
    }
    data = data.subspan(n);
  }
}

void PartialFile::write_raw(int64_t offset, std::span<const std::byte> data) {
  write_at(file_.get(), data, offset, path_);
}

void PartialFile::declare_size(const JournalHeader& header) {
  if (::ftruncate(file_.get(), header.size_bytes) != 0) throw_errno(path_, "can't cut");
  header_ = header;
  reset_blocks();
  for (Block& block : blocks_)
    block.state = BlockState::kUnverified;
  count_states();
  journal_.restart(header_);
  if (!blocks_.empty()) records_ += journal_unverified_record(0, blocks_.size());
}

void PartialFile::distrust(size_t first_block, size_t n_blocks) {
  flush_journal();
  for (size_t b = first_block; b < first_block + n_blocks; ++b)
    set_state(b, {});
  records_ += journal_missing_record(first_block, n_blocks);
}

int64_t PartialFile::front_bytes() {
  while (front_block_ < blocks_.size() && has_arrived(blocks_[front_block_]))
    ++front_block_;
  return std::min(static_cast<int64_t>(front_block_) * block_bytes_, header_.size_bytes);
}

int64_t PartialFile::arrived_bytes() const {
  if (!has_size()) return 0;
  int64_t bytes = static_cast<int64_t>(n_arrived_) * block_bytes_;
  if (!blocks_.empty() && has_arrived(blocks_.back())) {
    bytes -= static_cast<int64_t>(blocks_.size()) * block_bytes_ - header_.size_bytes;
  }
  return bytes;
}

void PartialFile::flush_journal() {
  for (const Run& run : runs_) {
    records_ += journal_arrived_record(run.first_block, run.crcs, run.epoch);
  }
  runs_.clear();
  if (records_.empty()) return;
  const std::string records = std::exchange(records_, {});
  journal_.append(records);
}

void PartialFile::finish(const fs::path& target) {
  const fs::path dir = path_.parent_path().empty() ? fs::path(".") : path_.parent_path();
  if (!target.empty()) {
    if (::rename(path_.c_str(), target.c_str()) != 0) {
      throw_errno(path_, "can't rename to " + target.string());
    }
    const fs::path parent = target.parent_path();
    sync_dir(parent.empty() ? fs::path(".") : parent);
  }
  journal_.remove();
  sync_dir(dir);
}

void PartialFile::discard() {
  ::unlink(path_.c_str());
  journal_.remove();
}

}  // namespace dsctl::registry
