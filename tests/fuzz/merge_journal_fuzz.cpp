// The journal of a merge on arbitrary bytes: it throws Error, says that no work was begun, or gives
// a work that stays inside its files and prints to a journal that reads the same.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "gguf/error.h"
#include "gguf/foreign_file.h"
#include "gguf/merge_journal.h"

namespace {

using dsctl::gguf::MergeJournal;
using dsctl::gguf::MergeWork;
using dsctl::gguf::Segment;

void require(bool condition) {
  if (!condition) std::abort();
}

void check(const MergeJournal& journal, std::string_view text) {
  const MergeWork& work = journal.work;
  require(journal.valid_bytes > 0 && journal.valid_bytes <= text.size());
  require(text[journal.valid_bytes - 1] == '\n');
  require(!work.shards.empty() && journal.state.shard_idx <= work.shards.size());
  for (const MergeWork::Shard& shard : work.shards) {
    require(shard.path.is_absolute());
    for (const Segment& segment : shard.segments) {
      require(segment.size_bytes > 0 && segment.in_offset_bytes >= 0);
      require(segment.in_offset_bytes <= shard.size_bytes - segment.size_bytes);
      require(segment.out_offset_bytes >= work.header_bytes);
      require(segment.out_offset_bytes <= work.size_bytes - segment.size_bytes);
    }
    require(shard.data_bytes() >= 0);
  }
  if (journal.state.done_bytes > 0) {
    require(journal.state.done_bytes < work.shards[journal.state.shard_idx].data_bytes());
  }
  const auto again = dsctl::gguf::parse_merge_journal(dsctl::gguf::print_merge_work(work));
  require(again && again->work == work);
  // Whatever follows without a newline changes nothing.
  const std::string torn = std::string(text.substr(0, journal.valid_bytes)) + "done 1";
  const auto same = dsctl::gguf::parse_merge_journal(torn);
  require(same && same->work == work && same->state == journal.state);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto pointer = dsctl::gguf::parse_lfs_pointer(text)) {
    require(pointer->size_bytes >= 0 && pointer->sha256.size() == 64);
  }
  try {
    if (const auto journal = dsctl::gguf::parse_merge_journal(text)) check(*journal, text);
  } catch (const dsctl::gguf::Error& error) {
    require(error.what()[0] != '\0');
  }
  return 0;
}
