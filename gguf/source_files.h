// The files of a model as sources of a copy: opened for reading and watched for changes. Internal
// to gguf/.
#pragma once

#include <cstddef>
#include <vector>

#include "gguf/data_copy.h"
#include "gguf/gguf_file.h"
#include "gguf/merge.h"
#include "gguf/new_file.h"

namespace dsctl::gguf {

/// Data is read from these, not through the model's mapping, whose pages would count as memory.
class SourceFiles {
 public:
  /// Opens the shards of `model`. Throws Error when one changed since it was mapped.
  explicit SourceFiles(const GgufFile& model);

  /// The way of `segment` from shard `shard_idx` into `out`. Refers to both.
  CopyPart part(size_t shard_idx, const Segment& segment, const NewFile& out) const;

  /// Throws Error when a file changed since it was opened.
  void check_unchanged() const;

 private:
  std::vector<DataFile> files_;
  std::vector<struct stat> before_;
};

}  // namespace dsctl::gguf
