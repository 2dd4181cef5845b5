#include "gguf/split_model.h"

#include <sys/resource.h>

#include <algorithm>
#include <memory>
#include <span>

#include "gguf/error.h"
#include "gguf/new_file.h"
#include "gguf/printable.h"
#include "gguf/source_files.h"
#include "gguf/split.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxShards = 65535;  // split.count has 16 bits
constexpr int64_t kSizeUnit = 32;     // the padding that counts for the size of a shard

struct TensorRange {
  size_t begin = 0;
  size_t end = 0;
};

/// Which tensors go into which shard.
std::vector<TensorRange> divide(std::span<const TensorInfo> tensors, const SplitRule& rule) {
  std::vector<TensorRange> ranges;
  if (rule.first_shard == SplitOptions::FirstShard::MetadataOnly) ranges.push_back({0, 0});
  ranges.push_back({0, 0});
  int64_t size_bytes = 0;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t padded = (tensors[i].size_bytes + kSizeUnit - 1) & -kSizeUnit;
    const bool is_full = rule.max_size_bytes > 0 ? padded > rule.max_size_bytes - size_bytes
                                                 : i % static_cast<size_t>(rule.n_tensors) == 0;
    if (is_full && ranges.back().end > ranges.back().begin) {
      ranges.push_back({i, i});
      size_bytes = 0;
    }
    ranges.back().end = i + 1;
    size_bytes += padded;
  }
  return ranges;
}

GgufLayout shard_layout(const GgufFile& model, size_t idx, size_t n_shards,
                        const TensorRange& range) {
  const auto alignment = static_cast<uint32_t>(model.find_uint("general.alignment").value_or(32));
  GgufWriter writer({3, alignment});
  if (idx == 0) {
    for (const KeyValue& entry : model.metadata()) {
      const bool is_written = alignment != 32 && entry.key == "general.alignment";
      const bool is_new = entry.key == "split.no" || entry.key == "split.count" ||
                          entry.key == "split.tensors.count";
      if (!is_written && !is_new) writer.add_value(entry.key, entry.value);
    }
  }
  writer.add("split.no", static_cast<uint16_t>(idx));
  writer.add("split.tensors.count", static_cast<int32_t>(model.tensors().size()));
  writer.add("split.count", static_cast<uint16_t>(n_shards));
  for (size_t i = range.begin; i < range.end; ++i) {
    const TensorInfo& tensor = model.tensors()[i];
    writer.declare_tensor(tensor.name, tensor.dtype,
                          std::span(tensor.dims).first(static_cast<size_t>(tensor.n_dims)));
  }
  return writer.layout();
}

/// All shards are open at once until all are whole.
void allow_open_files(size_t n_files) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= n_files) return;
  limit.rlim_cur = std::min<rlim_t>(n_files, limit.rlim_max);
  ::setrlimit(RLIMIT_NOFILE, &limit);
}

}  // namespace

std::vector<PlannedShard> plan_split(const GgufFile& model, const fs::path& prefix,
                                     const SplitRule& rule) {
  if (rule.max_size_bytes <= 0 && rule.n_tensors <= 0) {
    throw Error("a shard must be allowed at least one tensor");
  }
  const std::vector<TensorRange> ranges = divide(model.tensors(), rule);
  if (ranges.size() > kMaxShards) {
    throw Error("that makes " + std::to_string(ranges.size()) + " shards, at most " +
                std::to_string(kMaxShards) + " can be counted: allow more in each");
  }
  std::vector<PlannedShard> shards;
  for (size_t i = 0; i < ranges.size(); ++i) {
    const ShardName name{prefix.filename().string(), static_cast<int>(i),
                         static_cast<int>(ranges.size())};
    shards.push_back({prefix.parent_path() / shard_file_name(name), ranges[i].begin, ranges[i].end,
                      shard_layout(model, i, ranges.size(), ranges[i])});
  }
  return shards;
}

CopyCounts write_split(const GgufFile& model, const std::vector<PlannedShard>& shards,
                       const MergeOptions& options) {
  std::vector<fs::path> in_paths;
  for (const MappedFile& shard : model.shards())
    in_paths.push_back(shard.path());
  int64_t needed = 0;
  for (const PlannedShard& shard : shards) {
    check_out(shard.path, in_paths, options.if_exists);
    needed += shard.layout.size_bytes;
  }
  const fs::path directory = shards.front().path.parent_path();
  if (const int64_t free = free_bytes(directory); needed > free) {
    throw Error(shards.front().path.string() + ": the shards need " + printable_size(needed) +
                ", but only " + printable_size(free) +
                " are free on its file system: make room or write them elsewhere");
  }
  allow_open_files(shards.size() + in_paths.size() + 64);
  const SourceFiles sources(model);
  std::vector<std::unique_ptr<NewFile>> files;
  std::vector<CopyPart> parts;
  for (const PlannedShard& shard : shards) {
    NewFile& file = *files.emplace_back(std::make_unique<NewFile>(shard.path));
    file.reserve(shard.layout.size_bytes);
    file.write_at(0, shard.layout.header);
    for (size_t i = shard.begin; i < shard.end; ++i) {
      const TensorInfo& tensor = model.tensors()[i];
      parts.push_back(
          sources.part(static_cast<size_t>(tensor.shard_idx),
                       {tensor.offset_bytes, shard.layout.tensors[i - shard.begin].offset_bytes,
                        tensor.size_bytes},
                       file));
    }
  }
  const CopyCounts counts = copy_parts(parts, "splitting", options.progress);
  if (options.verify == Verify::kYes) {
    for (const auto& file : files)
      sync_and_forget(file->fd(), file->path());
    compare_parts(parts, "verifying", options.progress);
  }
  // All before the first gets its name, so that a disk that fails now leaves nothing.
  for (const auto& file : files)
    file->sync();
  sources.check_unchanged();
  for (size_t i = files.size(); i-- > 0;)
    files[i]->publish();
  return counts;
}

}  // namespace dsctl::gguf
