// The journal of a merge in place: what is to be done, written before the first byte moves, and how
// far it is, written each time that more of the merged file is safe on disk.
//
// Text. The first line is JSON and describes the whole work; every further line "done SHARD BYTES"
// says that all shards before SHARD (counted from 0), and of SHARD the first BYTES of its data in
// the order of its segments, are in the merged file for good. A last line without its newline was
// never finished and says nothing.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/merge.h"

namespace dsctl::gguf {

/// What a journal says of the work.
struct MergeWork {
  struct Shard {
    std::filesystem::path path;  // absolute
    int64_t size_bytes = 0;
    int64_t modified_ns = 0;  // since 1970
    uint64_t inode = 0;
    std::vector<Segment> segments;

    int64_t data_bytes() const;  // of all segments
    bool operator==(const Shard&) const = default;
  };
  int64_t size_bytes = 0;    // of the merged file
  int64_t header_bytes = 0;  // of it, before the first tensor's data; written before the journal
  uint64_t header_hash = 0;  // FNV-1a, to know the file again
  std::vector<Shard> shards;

  bool operator==(const MergeWork&) const = default;
};

/// How far the work is: shards before `shard_idx` are merged, of this one the first `done_bytes`.
struct MergeState {
  size_t shard_idx = 0;
  int64_t done_bytes = 0;

  bool operator==(const MergeState&) const = default;
};

struct MergeJournal {
  MergeWork work;
  MergeState state;
  size_t valid_bytes = 0;  // of the text; the rest is an unfinished line
};

/// The file that holds the data while a merge in place to `out` is under way, and its journal.
std::filesystem::path merge_partial_path(const std::filesystem::path& out);
std::filesystem::path merge_journal_path(const std::filesystem::path& out);

/// FNV-1a, 64 bits, of `bytes`.
uint64_t header_hash(std::string_view bytes);

/// The first line of a journal, newline included.
std::string print_merge_work(const MergeWork& work);

/// A line that says that `state` is reached, newline included.
std::string print_merge_state(const MergeState& state);

/// Reads a journal; nothing when not even its first line is complete, so that no work was begun.
/// Throws Error saying what is wrong and in which line when it is damaged: every number has been
/// checked, so that no segment leaves its shard or the merged file.
std::optional<MergeJournal> parse_merge_journal(std::string_view text);

}  // namespace dsctl::gguf
