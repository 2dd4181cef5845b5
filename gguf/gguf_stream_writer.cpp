#include "gguf/gguf_stream_writer.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "gguf/error.h"
#include "gguf/new_file.h"
#include "gguf/printable.h"

namespace dsctl::gguf {
namespace {

/// The parts of a tensor that were written, as disjoint ranges that do not touch: begin -> end.
class Ranges {
 public:
  void add(int64_t begin, int64_t end) {
    auto next = ranges_.upper_bound(begin);
    if (next != ranges_.begin() && std::prev(next)->second >= begin) --next;
    while (next != ranges_.end() && next->first <= end) {
      begin = std::min(begin, next->first);
      end = std::max(end, next->second);
      next = ranges_.erase(next);
    }
    ranges_.emplace_hint(next, begin, end);
  }

  int64_t size_bytes() const {
    int64_t sum = 0;
    for (const auto& [begin, end] : ranges_)
      sum += end - begin;
    return sum;
  }

 private:
  std::map<int64_t, int64_t> ranges_;
};

}  // namespace

struct GgufStreamWriter::State {
  GgufLayout layout;
  NewFile file;
  std::mutex mutex;             // guards `written`
  std::vector<Ranges> written;  // of each tensor

  State(const std::filesystem::path& path, GgufLayout places)
      : layout(std::move(places)), file(path), written(layout.tensors.size()) {}
};

GgufStreamWriter::GgufStreamWriter(const std::filesystem::path& path, const GgufWriter& header)
    : state_(std::make_unique<State>(path, header.layout())) {
  state_->file.reserve(state_->layout.size_bytes);
  state_->file.write_at(0, state_->layout.header);
  for (size_t i = 0; i < header.n_tensors(); ++i) {
    if (const auto data = header.data(i)) write(i, 0, *data);
  }
}

GgufStreamWriter::~GgufStreamWriter() = default;

const GgufLayout& GgufStreamWriter::layout() const {
  return state_->layout;
}

void GgufStreamWriter::write(size_t tensor_idx, int64_t offset_bytes,
                             std::span<const std::byte> data) {
  const GgufLayout::Tensor& tensor = state_->layout.tensors.at(tensor_idx);
  const auto size_bytes = static_cast<int64_t>(data.size());
  if (offset_bytes < 0 || offset_bytes > tensor.size_bytes ||
      size_bytes > tensor.size_bytes - offset_bytes) {
    throw Error(printable(tensor.name) + ": " + std::to_string(size_bytes) + " bytes at byte " +
                std::to_string(offset_bytes) + " leave the tensor of " +
                std::to_string(tensor.size_bytes) + " bytes");
  }
  if (data.empty()) return;
  state_->file.write_at(tensor.offset_bytes + offset_bytes, data);
  const std::scoped_lock lock(state_->mutex);
  state_->written[tensor_idx].add(offset_bytes, offset_bytes + size_bytes);
}

void GgufStreamWriter::finish() {
  {
    const std::scoped_lock lock(state_->mutex);
    for (size_t i = 0; i < state_->written.size(); ++i) {
      const GgufLayout::Tensor& tensor = state_->layout.tensors[i];
      const int64_t written = state_->written[i].size_bytes();
      if (written == tensor.size_bytes) continue;
      throw Error(state_->file.path().string() + ": tensor " + printable(tensor.name) + " has " +
                  std::to_string(written) + " of its " + std::to_string(tensor.size_bytes) +
                  " bytes");
    }
  }
  state_->file.publish();
}

}  // namespace dsctl::gguf
