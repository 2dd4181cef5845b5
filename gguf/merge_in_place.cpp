#include "gguf/merge_in_place.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gguf/error.h"
#include "gguf/merge_journal.h"
#include "gguf/merge_journal_file.h"
#include "gguf/new_file.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;

// Smaller steps would spend their time on syncing; larger ones need more room and gain nothing.
constexpr int64_t kMinStepBytes = int64_t{16} << 20;
constexpr int64_t kMaxStepBytes = int64_t{1} << 30;
constexpr std::string_view kMerging = "merging";    // to who watches the progress
constexpr int64_t kSlackBytes = int64_t{16} << 20;  // for the file system's own bookkeeping

[[noreturn]] void fail(const fs::path& path, const std::string& what) {
  throw Error(path.string() + ": " + what + ": " + std::strerror(errno));
}

int64_t modified_ns(const struct stat& status) {
  return int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
}

std::optional<struct stat> status_of(const fs::path& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) == 0) return status;
  if (errno == ENOENT) return std::nullopt;
  fail(path, "can't be examined");
}

fs::path parent_of(const fs::path& path) {
  return path.parent_path().empty() ? "." : path.parent_path();
}

/// Throws unless the file at `path` can be given up without harm to anything else.
void check_can_remove(const fs::path& path, const struct stat& status) {
  const std::string refusal = ": can't be merged in place, because ";
  if (S_ISLNK(status.st_mode)) {
    std::error_code error;
    throw Error(path.string() + refusal + "it is a symbolic link to " +
                fs::read_symlink(path, error).string() +
                ": name the files themselves, or merge without --in-place");
  }
  if (status.st_nlink > 1) {
    throw Error(path.string() + refusal + "it has " + std::to_string(status.st_nlink) +
                " names (hard links; a model created from it may be one): removing one frees "
                "nothing; merge without --in-place");
  }
  if (::access(parent_of(path).c_str(), W_OK | X_OK) != 0) {
    fail(path, "can't be merged in place, because it can't be removed from its directory");
  }
}

/// Bytes of `shard` behind its last tensor and that tensor's padding.
int64_t trailing_bytes(const MappedFile& shard, const std::vector<Segment>& segments,
                       int64_t alignment) {
  if (segments.empty()) return 0;  // the parser does not tell where the header of such a shard ends
  int64_t end = 0;
  for (const Segment& segment : segments)
    end = std::max(end, segment.in_offset_bytes + segment.size_bytes);
  return static_cast<int64_t>(shard.bytes().size()) - ((end + alignment - 1) & -alignment);
}

/// A shard's part in the room that a merge in place takes.
struct ShardSpace {
  int64_t data_bytes = 0;  // it adds to the merged file
  int64_t disk_bytes = 0;  // that become free when it goes; 0 on another file system
};

/// The bytes that must be free, where what was copied is freed shard by shard or, with
/// `step_bytes`, step by step.
int64_t space_needed(int64_t header_bytes, const std::vector<ShardSpace>& shards,
                     int64_t step_bytes) {
  int64_t taken = header_bytes;
  int64_t peak = taken;
  for (const ShardSpace& shard : shards) {
    const bool in_steps = step_bytes > 0 && shard.disk_bytes > 0;
    peak = std::max(peak,
                    taken + (in_steps ? std::min(step_bytes, shard.data_bytes) : shard.data_bytes));
    taken += shard.data_bytes - shard.disk_bytes;
  }
  return peak + kSlackBytes;
}

/// `size_bytes` of a shard's data from its byte `begin` on, counted along its segments.
std::vector<Segment> cut_segments(const std::vector<Segment>& segments, int64_t begin,
                                  int64_t size_bytes) {
  std::vector<Segment> cut;
  for (const Segment& segment : segments) {
    const int64_t skip = std::min(begin, segment.size_bytes);
    begin -= skip;
    const int64_t take = std::min(segment.size_bytes - skip, size_bytes);
    if (take > 0) {
      cut.push_back({segment.in_offset_bytes + skip, segment.out_offset_bytes + skip, take});
    }
    size_bytes -= take;
  }
  return cut;
}

/// One run over the work of a journal.
class InPlaceMerge {
 public:
  InPlaceMerge(const fs::path& out, MergeJournalFile& journal, MergeJournal begun,
               const MergeOptions& options)
      : out_(out),
        partial_path_(merge_partial_path(out)),
        journal_(journal),
        work_(std::move(begun.work)),
        state_(begun.state),
        options_(options) {}

  /// Does what is left to do. Throws Error; then either nothing is left behind or the error says
  /// that the work can go on.
  CopyCounts run() {
    try {
      merge_shards();
      finish();
      return counts_;
    } catch (const Error& error) {
      if (give_up()) throw;
      throw Error(std::string(error.what()) +
                  "; nothing is lost: run the same command again to finish");
    } catch (...) {
      give_up();
      throw;
    }
  }

  /// Throws unless `file` begins as the merged file does and has its size.
  void check_header(const DataFile& file) const {
    const bool has_size = file.status().st_size == work_.size_bytes;
    std::string header(has_size ? static_cast<size_t>(work_.header_bytes) : 0, '\0');
    const ssize_t n = ::pread(file.fd(), header.data(), header.size(), 0);
    if (has_size && n == static_cast<ssize_t>(header.size()) &&
        header_hash(header) == work_.header_hash) {
      return;
    }
    throw Error(file.path().string() + ": is not the file that its journal describes");
  }

  bool is_merged() const { return state_.shard_idx == work_.shards.size(); }

  /// Removes merged shards that a kill left, then the journal.
  void finish_renamed() {
    for (const MergeWork::Shard& shard : work_.shards)
      remove_merged(shard);
    journal_.remove();
  }

 private:
  /// Tells how much of the merged file's data is safe, `more_bytes` beyond what the journal says.
  void tell(std::string_view what, int64_t more_bytes) const {
    if (!options_.progress) return;
    int64_t done = 0;
    int64_t total = 0;
    for (size_t i = 0; i < work_.shards.size(); ++i) {
      const int64_t size_bytes = work_.shards[i].data_bytes();
      total += size_bytes;
      if (i < state_.shard_idx) done += size_bytes;
    }
    options_.progress(what, done + state_.done_bytes + more_bytes, total);
  }

  void merge_shards() {
    const DataFile partial(partial_path_, O_RDWR | O_NOFOLLOW);
    check_header(partial);
    for (size_t i = 0; i < state_.shard_idx; ++i)
      remove_merged(work_.shards[i]);
    while (state_.shard_idx < work_.shards.size()) {
      merge_shard(work_.shards[state_.shard_idx], partial);
      remove_merged(work_.shards[state_.shard_idx - 1]);
      tell(kMerging, 0);
    }
    if (::fsync(partial.fd()) != 0) partial.fail("can't be synced");
  }

  void finish() {
    if (::rename(partial_path_.c_str(), out_.c_str()) != 0) {
      fail(partial_path_, "can't be renamed to " + out_.string());
    }
    sync_directory(out_.parent_path());
    tell(kMerging, 0);
    journal_.remove();
  }

  /// Where no byte of a shard has been freed, nothing is kept. Returns whether that was so.
  bool give_up() {
    if (state_ != MergeState{}) return false;
    ::unlink(partial_path_.c_str());
    journal_.remove();
    return true;
  }

  DataFile open_shard(const MergeWork::Shard& shard, bool is_begun) const {
    DataFile file(shard.path, O_RDONLY | O_NOFOLLOW);
    check_unchanged(file, shard, is_begun);
    ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_SEQUENTIAL);
    return file;
  }

  /// Throws unless `file` is the shard that the journal describes. Freeing parts changes its time.
  void check_unchanged(const DataFile& file, const MergeWork::Shard& shard, bool is_begun) const {
    const struct stat status = file.status();
    const bool is_same =
        modified_ns(status) == shard.modified_ns || (is_begun && status.st_ino == shard.inode);
    if (is_same && status.st_size == shard.size_bytes) return;
    throw Error(shard.path.string() + ": changed since the merge began");
  }

  /// Copies what is left of the shard at which the work is, until the journal says so.
  void merge_shard(const MergeWork::Shard& shard, const DataFile& partial) {
    const int64_t total = shard.data_bytes();
    int64_t done = state_.done_bytes;
    const DataFile file = open_shard(shard, done > 0);
    // A kill may have come between the line that says "done" and the freeing.
    if (done > 0) free_data(shard, 0, done);
    while (true) {
      const bool has_freed = done > 0;
      const int64_t step = next_step(file, partial, total - done);
      copy_step(shard, done, step, file, partial);
      check_unchanged(file, shard, has_freed);
      done += step;
      const bool is_whole = done == total;
      const MergeState reached =
          is_whole ? MergeState{state_.shard_idx + 1, 0} : MergeState{state_.shard_idx, done};
      journal_.append(print_merge_state(reached));
      state_ = reached;
      tell(kMerging, 0);
      if (is_whole) return;
      free_data(shard, done - step, step);
      tell(kMerging, 0);
    }
  }

  /// How much of the `rest` of a shard to copy before its bytes are freed: all where it fits.
  int64_t next_step(const DataFile& file, const DataFile& partial, int64_t rest) const {
    const int64_t limit = options_.max_step_bytes > 0 ? options_.max_step_bytes : rest;
    const int64_t free = free_bytes(out_.parent_path()) - kSlackBytes;
    if (rest <= free || file.status().st_dev != partial.status().st_dev) {
      return std::min(rest, limit);
    }
    return std::min({rest, limit, std::clamp(free / 2, kMinStepBytes, kMaxStepBytes)});
  }

  /// Copies a part of the shard's data into the merged file; on disk when this returns.
  void copy_step(const MergeWork::Shard& shard, int64_t begin, int64_t size_bytes,
                 const DataFile& file, const DataFile& partial) {
    std::vector<CopyPart> parts;
    for (const Segment& segment : cut_segments(shard.segments, begin, size_bytes)) {
      parts.push_back({file.fd(), segment.in_offset_bytes, partial.fd(), segment.out_offset_bytes,
                       segment.size_bytes, &file.path(), &partial.path()});
      // A full disk shall be known before the copying, not after most of it.
      if (::fallocate(partial.fd(), 0, segment.out_offset_bytes, segment.size_bytes) == 0) continue;
      if (errno != ENOSPC && errno != EDQUOT && errno != EFBIG) continue;  // it can't, so we try
      fail(partial.path(), "needs another " + printable_size(segment.size_bytes) + ", but only " +
                               printable_size(free_bytes(out_.parent_path())) + " are free");
    }
    const Progress tell_more = [this](std::string_view what, int64_t done, int64_t) {
      tell(what, done);
    };
    const CopyCounts counts = copy_parts(parts, kMerging, tell_more);
    counts_.shared += counts.shared;
    counts_.kernel += counts.kernel;
    counts_.through += counts.through;
    if (options_.verify == Verify::kYes) {
      sync_and_forget(partial.fd(), partial.path());
      compare_parts(parts, "verifying", tell_more);
    }
    if (::fsync(partial.fd()) != 0) partial.fail("can't be synced");
  }

  /// Gives a part of the shard's data back to the file system; the rest of it stays in place.
  void free_data(const MergeWork::Shard& shard, int64_t begin, int64_t size_bytes) const {
    const DataFile file(shard.path, O_WRONLY | O_NOFOLLOW);
    for (const Segment& segment : cut_segments(shard.segments, begin, size_bytes)) {
      if (::fallocate(file.fd(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                      segment.in_offset_bytes, segment.size_bytes) == 0) {
        continue;
      }
      file.fail("there is not room for the whole shard, and parts of it can't be freed");
    }
  }

  /// Removes a shard whose data is safe, unless another file has its name by now.
  void remove_merged(const MergeWork::Shard& shard) const {
    const auto status = status_of(shard.path);
    if (!status || !S_ISREG(status->st_mode) || status->st_size != shard.size_bytes) return;
    if (status->st_ino != shard.inode && modified_ns(*status) != shard.modified_ns) return;
    if (::unlink(shard.path.c_str()) != 0 && errno != ENOENT) {
      fail(shard.path, "can't be removed");
    }
    sync_directory(shard.path.parent_path());
  }

  const fs::path& out_;
  fs::path partial_path_;
  MergeJournalFile& journal_;
  MergeWork work_;
  MergeState state_;
  const MergeOptions& options_;
  CopyCounts counts_;
};

/// The work of merging `model`, as its files are now.
MergeWork describe_work(const GgufFile& model, const MergeLayout& layout) {
  MergeWork work;
  work.size_bytes = layout.size_bytes;
  work.header_bytes = static_cast<int64_t>(layout.header.size());
  work.header_hash = header_hash(layout.header);
  for (size_t i = 0; i < model.shards().size(); ++i) {
    MergeWork::Shard& shard = work.shards.emplace_back();
    shard.path = fs::absolute(model.shards()[i].path()).lexically_normal();
    const auto status = status_of(shard.path);
    if (!status || status->st_size != static_cast<off_t>(model.shards()[i].bytes().size())) {
      throw Error(shard.path.string() + ": changed while it was read");
    }
    shard.size_bytes = status->st_size;
    shard.modified_ns = modified_ns(*status);
    shard.inode = status->st_ino;
    shard.segments = layout.segments[i];
  }
  return work;
}

/// Makes the file that becomes the merged one: its header, and a hole for the rest.
void make_partial(const fs::path& path, const MergeLayout& layout) {
  const DataFile file(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW);
  file.write_at(0, layout.header);
  if (::ftruncate(file.fd(), layout.size_bytes) != 0) file.fail("can't be lengthened");
  if (::fsync(file.fd()) != 0) file.fail("can't be synced");
}

std::vector<fs::path> shard_paths(const GgufFile& model) {
  std::vector<fs::path> paths;
  for (const MappedFile& shard : model.shards())
    paths.push_back(shard.path());
  return paths;
}

}  // namespace

InPlacePlan plan_in_place(const GgufFile& model, const fs::path& out) {
  const MergeLayout layout = merge_layout(model);
  const auto alignment = static_cast<int64_t>(model.find_uint("general.alignment").value_or(32));
  struct stat out_dir {};
  if (::stat(parent_of(out).c_str(), &out_dir) != 0) fail(parent_of(out), "can't be examined");
  std::vector<ShardSpace> spaces;
  bool is_one_file_system = true;
  for (size_t i = 0; i < model.shards().size(); ++i) {
    const MappedFile& shard = model.shards()[i];
    const auto status = status_of(shard.path());
    if (!status) throw Error(shard.path().string() + ": is gone");
    check_can_remove(shard.path(), *status);
    if (const int64_t extra = trailing_bytes(shard, layout.segments[i], alignment); extra > 0) {
      throw Error(shard.path().string() + ": can't be merged in place, because " +
                  printable_size(extra) + " after its tensors would be lost");
    }
    const bool is_here = status->st_dev == out_dir.st_dev;
    is_one_file_system = is_one_file_system && is_here;
    ShardSpace& space = spaces.emplace_back();
    for (const Segment& segment : layout.segments[i])
      space.data_bytes += segment.size_bytes;
    space.disk_bytes = is_here ? int64_t{status->st_blocks} * 512 : 0;
  }
  const auto header_bytes = static_cast<int64_t>(layout.header.size());
  InPlacePlan plan;
  plan.free_bytes = free_bytes(out.parent_path());
  plan.needed_bytes = space_needed(header_bytes, spaces, 0);
  if (plan.needed_bytes <= plan.free_bytes) return plan;
  plan.step_bytes = std::clamp(plan.free_bytes / 4, kMinStepBytes, kMaxStepBytes);
  plan.needed_bytes = space_needed(header_bytes, spaces, plan.step_bytes);
  if (plan.needed_bytes <= plan.free_bytes) return plan;
  throw Error(out.string() + ": merging in place needs " + printable_size(plan.needed_bytes) +
              " free" + (is_one_file_system ? "" : " (shards on other file systems make no room)") +
              ", but only " + printable_size(plan.free_bytes) +
              " are free on its file system: make room or write it elsewhere");
}

CopyCounts merge_in_place(GgufFile model, const fs::path& out, const MergeOptions& options) {
  check_out(out, shard_paths(model), options.if_exists);
  plan_in_place(model, out);
  MergeJournalFile journal(out);
  const fs::path partial_path = merge_partial_path(out);
  const bool has_partial = status_of(partial_path).has_value();
  if (has_partial && !journal.was_there()) {
    journal.remove();
    throw Error(partial_path.string() +
                ": is there without its journal; it may hold the only copy of some shards: look "
                "at it, then remove or rename it");
  }
  if (const auto begun = journal.read(); begun && (has_partial || begun->state != MergeState{})) {
    throw Error(out.string() + ": a merge in place to it was begun and not finished");
  }
  journal.start_over();
  MergeJournal begun;
  try {
    const MergeLayout layout = merge_layout(model);
    begun.work = describe_work(model, layout);
    make_partial(partial_path, layout);
    journal.append(print_merge_work(begun.work));
    sync_directory(out.parent_path());
  } catch (...) {
    ::unlink(partial_path.c_str());
    journal.remove();
    throw;
  }
  // A mapping would keep the bytes of a removed shard on disk.
  { const GgufFile unmapped = std::move(model); }
  return InPlaceMerge(out, journal, std::move(begun), options).run();
}

bool has_unfinished_merge(const fs::path& out) {
  const fs::path path = merge_journal_path(out);
  if (!status_of(path)) return false;
  const auto begun = MergeJournalFile::read(DataFile(path, O_RDONLY | O_NOFOLLOW));
  return begun && (begun->state != MergeState{} || status_of(merge_partial_path(out)));
}

CopyCounts resume_in_place(const fs::path& out, const MergeOptions& options) {
  MergeJournalFile journal(out);
  auto begun = journal.read();
  if (!begun) {
    journal.remove();
    throw Error(out.string() + ": there is no merge in place to finish");
  }
  InPlaceMerge merge(out, journal, std::move(*begun), options);
  if (status_of(merge_partial_path(out))) {
    check_out(out, {}, options.if_exists);
    return merge.run();
  }
  if (!merge.is_merged() || !status_of(out)) {
    throw Error(merge_partial_path(out).string() +
                ": is gone, though its journal says that it held data of shards: if it was moved, "
                "move it back");
  }
  merge.check_header(DataFile(out, O_RDONLY));
  merge.finish_renamed();
  return {};
}

}  // namespace dsctl::gguf
