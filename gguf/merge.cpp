#include "gguf/merge.h"

#include <algorithm>
#include <span>
#include <utility>

#include "gguf/error.h"
#include "gguf/gguf_writer.h"
#include "gguf/merge_in_place.h"
#include "gguf/new_file.h"
#include "gguf/source_files.h"

namespace dsctl::gguf {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kSplitCount = "split.count";
constexpr std::string_view kAlignment = "general.alignment";

/// Appends a tensor's way to `segments`; tensors that stay neighbours make one segment.
void add_segment(std::vector<Segment>& segments, const Segment& added) {
  if (!segments.empty()) {
    Segment& last = segments.back();
    if (last.in_offset_bytes + last.size_bytes == added.in_offset_bytes &&
        last.out_offset_bytes + last.size_bytes == added.out_offset_bytes) {
      last.size_bytes += added.size_bytes;
      return;
    }
  }
  segments.push_back(added);
}

}  // namespace

MergeLayout merge_layout(const GgufFile& model) {
  if (model.find_uint(kSplitCount).value_or(0) == 0) {
    throw Error(model.shards().front().path().string() +
                ": is no shard of a split model (it has no split.count), so there is nothing to "
                "merge");
  }
  const auto alignment = static_cast<uint32_t>(model.find_uint(kAlignment).value_or(32));
  GgufWriter writer({3, alignment});
  for (const KeyValue& entry : model.metadata()) {
    const bool is_written = alignment != 32 && entry.key == kAlignment;  // by the writer itself
    if (entry.key != kSplitCount && !is_written) writer.add_value(entry.key, entry.value);
  }
  writer.add(kSplitCount, uint16_t{0});
  for (const TensorInfo& tensor : model.tensors()) {
    writer.declare_tensor(tensor.name, tensor.dtype,
                          std::span(tensor.dims).first(static_cast<size_t>(tensor.n_dims)));
  }
  GgufLayout layout = writer.layout();
  MergeLayout merged;
  merged.header = std::move(layout.header);
  merged.size_bytes = layout.size_bytes;
  merged.segments.resize(model.shards().size());
  for (size_t i = 0; i < layout.tensors.size(); ++i) {
    const TensorInfo& tensor = model.tensors()[i];
    add_segment(merged.segments[static_cast<size_t>(tensor.shard_idx)],
                {tensor.offset_bytes, layout.tensors[i].offset_bytes, tensor.size_bytes});
  }
  return merged;
}

CopyCounts merge(const GgufFile& model, const fs::path& out, const MergeOptions& options) {
  std::vector<fs::path> paths;
  for (const MappedFile& shard : model.shards())
    paths.push_back(shard.path());
  check_out(out, paths, options.if_exists);
  if (has_unfinished_merge(out)) {
    throw Error(out.string() +
                ": a merge in place to it was interrupted and may hold the only copy of some "
                "shards: run the command with --in-place to finish it");
  }
  const MergeLayout layout = merge_layout(model);
  const SourceFiles sources(model);
  NewFile file(out);
  file.reserve(layout.size_bytes);
  file.write_at(0, layout.header);
  std::vector<CopyPart> parts;
  for (size_t i = 0; i < layout.segments.size(); ++i) {
    for (const Segment& segment : layout.segments[i])
      parts.push_back(sources.part(i, segment, file));
  }
  const CopyCounts counts = copy_parts(parts, "merging", options.progress);
  if (options.verify == Verify::kYes) {
    sync_and_forget(file.fd(), out);
    compare_parts(parts, "verifying", options.progress);
  }
  sources.check_unchanged();
  file.publish();
  return counts;
}

}  // namespace dsctl::gguf
