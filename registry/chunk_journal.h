// ChunkJournal: which blocks of a partial file have arrived, so that a download goes on where a
// killed one stopped.
//
// The journal is append-only and every record carries a checksum: what a crash tore off at the end
// is cut off, the rest stands. It claims that bytes were written, not that they reached the disk:
// each block comes with the CRC-32C of its bytes as they arrived, and a later run believes a block
// only after reading it back (while it hashes the front again). Blocks that a power cut swallowed
// are found that way and fetched again, without one flush while data arrives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "registry/digest.h"
#include "registry/file_io.h"

namespace dsctl::registry {

/// What a journal is about: a partial file of anything else is not gone on with.
struct JournalHeader {
  int64_t size_bytes = 0;
  std::optional<Digest> sha256;
  std::string git_sha1;  // 40 hex digits, or empty
  bool operator==(const JournalHeader&) const = default;
};

enum class BlockState : uint8_t {
  kMissing,
  kAssigned,    // a connection is to bring it; never in a journal
  kArrived,     // with the CRC-32C of what arrived
  kUnverified,  // was there before us: no CRC
};

struct Block {
  uint32_t crc = 0;
  BlockState state = BlockState::kMissing;
  uint8_t epoch = 0;  // index of the validator it came under
};

/// Everything a journal says.
struct JournalContent {
  JournalHeader header;
  std::vector<Block> blocks;
  std::vector<std::string> validators;  // "ETag" or "Last-Modified" values, in order of appearance
  size_t valid_bytes = 0;               // of the journal: what follows is torn or broken
};

/// The journal's unit for a file of `size_bytes`: a power of two from 4 KiB to 1 MiB, about a
/// 65,536th, so that what a killed process had not finished weighs nothing. Larger beyond 4 TiB.
int64_t block_bytes_for(int64_t size_bytes);
/// Number of blocks of a file of `size_bytes`.
size_t block_count_for(int64_t size_bytes);

/// Reads a journal's bytes up to the first broken record. Nothing when there is no valid header.
std::optional<JournalContent> parse_journal(std::string_view bytes);

/// The records, as bytes to append.
std::string journal_header_record(const JournalHeader& header);
std::string journal_validator_record(std::string_view validator);
/// Blocks [first_block, first_block + crcs.size()) arrived under validator `epoch`.
std::string journal_arrived_record(size_t first_block, std::span<const uint32_t> crcs,
                                   uint8_t epoch);
std::string journal_unverified_record(size_t first_block, size_t n_blocks);
/// The blocks are not to be believed any more.
std::string journal_missing_record(size_t first_block, size_t n_blocks);

/// The journal file, locked by whoever fetches.
class ChunkJournal {
 public:
  static constexpr size_t kMaxBytes = 256 << 20;

  /// Opens or creates `path` and locks it. Nothing when another process holds the lock.
  static std::optional<ChunkJournal> try_open(const std::filesystem::path& path);

  /// What the file says; cuts off what is broken. Nothing when it holds no valid journal.
  std::optional<JournalContent> load();
  /// Empties the file and starts it anew.
  void restart(const JournalHeader& header);
  /// Appends records, as one write.
  void append(std::string_view records);
  /// Removes the file, lock still held until this object dies.
  void remove();

 private:
  ChunkJournal(FileDescriptor file, std::filesystem::path path)
      : file_(std::move(file)), path_(std::move(path)) {}

  FileDescriptor file_;
  std::filesystem::path path_;
};

}  // namespace dsctl::registry
