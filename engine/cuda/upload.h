// Uploader: weights from the model file's mapping to the GPU, through a ring of pinned buffers, so
// that reading the file, the bus and the repacking kernels overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "engine/cuda/memory.h"
#include "engine/cuda/stream.h"
#include "engine/tensor.h"

namespace dsctl::engine::cuda {

class Uploader {
 public:
  /// Slots of `slot_bytes`, made when first used.
  Uploader(Stream& stream, int64_t slot_bytes) : stream_(stream), slot_bytes_(slot_bytes) {}
  ~Uploader();
  Uploader(const Uploader&) = delete;
  Uploader& operator=(const Uploader&) = delete;

  /// Copies the rows of `matrix`, `row_pitch` bytes apart, to `to` on the device.
  void copy_rows(const MatrixView& matrix, int64_t row_bytes, int64_t row_pitch, std::byte* to);
  void copy(const void* from, int64_t n_bytes, std::byte* to);

  /// Brings whole groups of 16 rows to the device, as many at a time as a slot holds, and calls
  /// `use(device rows, first_row, n_rows)`, which queues the kernel that reads them. Rows lie
  /// row_bytes apart.
  void stage_panels(const MatrixView& matrix, int64_t row_bytes,
                    const std::function<void(const std::byte*, int64_t, int)>& use);

  /// Waits for what is under way and gives the memory back.
  void finish();

 private:
  struct Slot {
    PinnedMemory host;
    DeviceMemory device;
    cudaEvent_t used = nullptr;
  };
  /// The next slot, once nothing reads it any more.
  Slot& next_slot();
  void mark_used(Slot& slot);
  void grow(int64_t slot_bytes);

  static constexpr size_t kSlots = 4;
  Stream& stream_;
  int64_t slot_bytes_;
  std::vector<Slot> slots_;
  size_t next_ = 0;
};

}  // namespace dsctl::engine::cuda
