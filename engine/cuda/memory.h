// Memory on the GPU and pinned memory of the host, owned.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/cuda/stream.h"

namespace dsctl::engine::cuda {

struct FreeDevice {
  void operator()(void* pointer) const { cudaFree(pointer); }
};
struct FreePinned {
  void operator()(void* pointer) const { cudaFreeHost(pointer); }
};

using DeviceMemory = std::unique_ptr<std::byte, FreeDevice>;
using PinnedMemory = std::unique_ptr<std::byte, FreePinned>;

/// Throw Error naming `purpose` and the size when there is not enough.
DeviceMemory allocate_device(int64_t n_bytes, const std::string& purpose);
PinnedMemory allocate_pinned(int64_t n_bytes, const std::string& purpose);

/// Memory that is given out piece by piece and freed all at once. Pieces are aligned to 256 bytes.
class DeviceArena {
 public:
  /// Takes memory from CUDA in chunks of `chunk_bytes`; a larger piece gets a chunk of its own.
  explicit DeviceArena(int64_t chunk_bytes) : chunk_bytes_(chunk_bytes) {}

  std::byte* allocate(int64_t n_bytes, const std::string& purpose);
  /// Bytes given out, their alignment included.
  int64_t used_bytes() const { return used_bytes_; }

 private:
  int64_t chunk_bytes_;
  std::vector<DeviceMemory> chunks_;
  std::byte* free_ = nullptr;  // in the chunk in use
  int64_t free_bytes_ = 0;
  int64_t used_bytes_ = 0;
};

}  // namespace dsctl::engine::cuda
