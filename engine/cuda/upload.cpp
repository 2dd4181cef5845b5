#include "engine/cuda/upload.h"

#include <algorithm>
#include <cstring>

#include "engine/cuda/tiles.h"

namespace dsctl::engine::cuda {

Uploader::~Uploader() {
  for (Slot& slot : slots_)
    cudaEventDestroy(slot.used);
}

void Uploader::grow(int64_t slot_bytes) {
  if (slot_bytes <= slot_bytes_) return;
  finish();
  slot_bytes_ = slot_bytes;
}

Uploader::Slot& Uploader::next_slot() {
  if (slots_.size() < kSlots) {
    Slot slot;
    slot.host = allocate_pinned(slot_bytes_, "the upload of weights");
    slot.device = allocate_device(slot_bytes_, "the upload of weights");
    check_cuda(cudaEventCreateWithFlags(&slot.used, cudaEventDisableTiming), "creating an event");
    slots_.push_back(std::move(slot));
    return slots_.back();
  }
  Slot& slot = slots_[next_];
  next_ = (next_ + 1) % kSlots;
  stream_.check(cudaEventSynchronize(slot.used), "waiting for an upload");
  return slot;
}

void Uploader::mark_used(Slot& slot) {
  stream_.check(cudaEventRecord(slot.used, stream_.get()), "recording an event");
}

void Uploader::copy(const void* from, int64_t n_bytes, std::byte* to) {
  const auto* bytes = static_cast<const std::byte*>(from);
  for (int64_t done = 0; done < n_bytes; done += slot_bytes_) {
    const auto size = static_cast<size_t>(std::min(slot_bytes_, n_bytes - done));
    Slot& slot = next_slot();
    std::memcpy(slot.host.get(), bytes + done, size);
    stream_.copy_to_device(to + done, slot.host.get(), size);
    mark_used(slot);
  }
}

void Uploader::copy_rows(const MatrixView& matrix, int64_t row_bytes, int64_t row_pitch,
                         std::byte* to) {
  if (matrix.row_stride_bytes == row_bytes && row_pitch == row_bytes) {
    copy(matrix.data, matrix.n_rows * row_bytes, to);
    return;
  }
  grow(row_pitch);
  const int64_t rows_each = slot_bytes_ / row_pitch;
  for (int64_t first = 0; first < matrix.n_rows; first += rows_each) {
    const int64_t n_rows = std::min(rows_each, matrix.n_rows - first);
    Slot& slot = next_slot();
    for (int64_t r = 0; r < n_rows; ++r) {
      std::byte* row = slot.host.get() + r * row_pitch;
      std::memcpy(row, matrix.row(first + r), static_cast<size_t>(row_bytes));
      std::memset(row + row_bytes, 0, static_cast<size_t>(row_pitch - row_bytes));
    }
    stream_.copy_to_device(to + first * row_pitch, slot.host.get(),
                           static_cast<size_t>(n_rows * row_pitch));
    mark_used(slot);
  }
}

void Uploader::stage_panels(const MatrixView& matrix, int64_t row_bytes,
                            const std::function<void(const std::byte*, int64_t, int)>& use) {
  grow(row_bytes * kPanelRows);
  const int64_t rows_each = slot_bytes_ / (row_bytes * kPanelRows) * kPanelRows;
  for (int64_t first = 0; first < matrix.n_rows; first += rows_each) {
    const int64_t n_rows = std::min(rows_each, matrix.n_rows - first);
    Slot& slot = next_slot();
    if (matrix.row_stride_bytes == row_bytes) {
      std::memcpy(slot.host.get(), matrix.row(first), static_cast<size_t>(n_rows * row_bytes));
    } else {
      for (int64_t r = 0; r < n_rows; ++r) {
        std::memcpy(slot.host.get() + r * row_bytes, matrix.row(first + r),
                    static_cast<size_t>(row_bytes));
      }
    }
    stream_.copy_to_device(slot.device.get(), slot.host.get(),
                           static_cast<size_t>(n_rows * row_bytes));
    use(slot.device.get(), first, static_cast<int>(n_rows));
    mark_used(slot);
  }
}

void Uploader::finish() {
  stream_.synchronize();
  for (Slot& slot : slots_)
    cudaEventDestroy(slot.used);
  slots_.clear();
  next_ = 0;
}

}  // namespace dsctl::engine::cuda
