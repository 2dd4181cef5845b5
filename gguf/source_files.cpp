#include "gguf/source_files.h"

#include <fcntl.h>

#include "gguf/error.h"

namespace dsctl::gguf {
namespace {

[[noreturn]] void fail_changed(const DataFile& file) {
  throw Error(file.path().string() + ": changed while it was read: start again when it is whole");
}

}  // namespace

SourceFiles::SourceFiles(const GgufFile& model) {
  files_.reserve(model.shards().size());
  for (const MappedFile& shard : model.shards()) {
    const DataFile& file = files_.emplace_back(shard.path(), O_RDONLY);
    before_.push_back(file.status());
    if (before_.back().st_size != static_cast<off_t>(shard.bytes().size())) fail_changed(file);
    ::posix_fadvise(file.fd(), 0, 0, POSIX_FADV_SEQUENTIAL);
  }
}

CopyPart SourceFiles::part(size_t shard_idx, const Segment& segment, const NewFile& out) const {
  const DataFile& in = files_[shard_idx];
  return {in.fd(),
          segment.in_offset_bytes,
          out.fd(),
          segment.out_offset_bytes,
          segment.size_bytes,
          &in.path(),
          &out.path()};
}

void SourceFiles::check_unchanged() const {
  for (size_t i = 0; i < files_.size(); ++i) {
    const struct stat now = files_[i].status();
    const struct stat& before = before_[i];
    if (now.st_size != before.st_size || now.st_mtim.tv_sec != before.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != before.st_mtim.tv_nsec) {
      fail_changed(files_[i]);
    }
  }
}

}  // namespace dsctl::gguf
