// PartialFile: one file that is being fetched, as it lies on disk: its bytes, which blocks of them
// have arrived, and the journal that tells the next run. Used by the download's thread alone.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "registry/chunk_journal.h"
#include "registry/file_io.h"

namespace dsctl::registry {

/// A range of a file that one request is to bring, and how far it has come.
struct Chunk {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t position = 0;  // everything in [begin, position) is written
  uint32_t crc = 0;      // of the block that `position` lies in, from its start
  int64_t missing() const { return end - position; }
};

class PartialFile {
 public:
  /// Locks the journal of `path`. Nothing when another process is fetching this file.
  static std::unique_ptr<PartialFile> try_open(const std::filesystem::path& path);

  /// Takes up what an earlier run, or another program, left of the file that `wanted` names, or
  /// starts anew when that was of something else. A `size_bytes` of -1 takes the journal's; when
  /// there is none, the file stays sizeless until start_anew.
  void take_up(const JournalHeader& wanted);
  /// Reads another file, all of it there, until close_other: to compare before anything is fetched.
  void open_other(const std::filesystem::path& other, int64_t size_bytes);
  void close_other();
  /// Drops everything and starts on a file of this size.
  void start_anew(const JournalHeader& header);

  bool has_size() const { return header_.size_bytes >= 0; }
  int64_t size_bytes() const { return header_.size_bytes; }
  int64_t block_bytes() const { return block_bytes_; }
  const std::vector<Block>& blocks() const { return blocks_; }
  int fd() const { return file_.get(); }
  /// What is read: the partial file, or the other one.
  const std::filesystem::path& path() const { return other_.empty() ? path_ : other_; }

  /// The validator of the answer seen last, of an earlier run too; empty when none was told.
  std::string validator() const { return validators_.empty() ? "" : validators_[epoch_]; }
  /// An answer came under `validator`. Its epoch: a number that bytes are stored with.
  uint8_t see_validator(std::string_view validator);
  uint8_t epoch() const { return epoch_; }

  /// The next missing range of at most `max_bytes`, assigned to the caller; nothing when every
  /// block has arrived or is assigned.
  std::optional<Chunk> assign(int64_t max_bytes);
  /// All missing blocks become the caller's, for a stream from 0.
  void assign_all();
  /// What of the blocks in [begin, end) was assigned and hasn't arrived is missing again.
  void unassign(int64_t begin, int64_t end);

  /// Writes bytes at the chunk's position and moves it on; blocks that become whole under `epoch`
  /// have arrived. Throws Error when the disk is full, saying that what arrived stays.
  void write(Chunk& chunk, std::span<const std::byte> data, uint8_t epoch);
  /// Like write, for a stream over blocks of which some have arrived: those are passed over.
  void write_missing(Chunk& chunk, std::span<const std::byte> data, uint8_t epoch);
  /// Writes at `offset` without counting: for a body of unknown size.
  void write_raw(int64_t offset, std::span<const std::byte> data);
  /// The size of a file whose bytes were written raw, all of them.
  void declare_size(const JournalHeader& header);
  /// Doesn't believe blocks [first_block, first_block + n_blocks) any more.
  void distrust(size_t first_block, size_t n_blocks);

  /// End of what has arrived without a gap from 0.
  int64_t front_bytes();
  bool is_complete() const { return has_size() && n_arrived_ == blocks_.size(); }
  /// Bytes of blocks that have arrived.
  int64_t arrived_bytes() const;
  /// Missing bytes that nobody is assigned to.
  bool has_missing();
  int64_t unassigned_bytes() const { return unassigned_blocks_ * block_bytes_; }

  /// Appends to the journal what has happened since the last call.
  void flush_journal();
  /// Renames to `target` (where it isn't empty), syncs the directory and removes the journal.
  void finish(const std::filesystem::path& target);
  /// Removes the partial file and the journal.
  void discard();

 private:
  PartialFile(std::filesystem::path path, ChunkJournal journal)
      : path_(std::move(path)), journal_(std::move(journal)) {}

  void reset_blocks();
  void set_state(size_t block_idx, Block block);
  void count_states();
  int64_t block_end(int64_t position) const;

  std::filesystem::path path_;
  std::filesystem::path other_;
  ChunkJournal journal_;
  FileDescriptor file_;
  JournalHeader header_{.size_bytes = -1, .sha256 = {}, .git_sha1 = {}};
  int64_t block_bytes_ = 0;
  std::vector<Block> blocks_;
  std::vector<std::string> validators_;
  uint8_t epoch_ = 0;  // index of the validator seen last
  size_t n_arrived_ = 0;
  int64_t unassigned_blocks_ = 0;
  size_t front_block_ = 0;    // no gap before it
  size_t missing_block_ = 0;  // no missing block before it

  // Arrived since the last flush: a run of blocks at a time.
  struct Run {
    size_t first_block = 0;
    uint8_t epoch = 0;
    std::vector<uint32_t> crcs;
  };
  std::vector<Run> runs_;
  std::string records_;
};

}  // namespace dsctl::registry
