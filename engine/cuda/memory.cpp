#include "engine/cuda/memory.h"

namespace dsctl::engine::cuda {
namespace {

std::string mebibytes(int64_t n_bytes) {
  return std::to_string((n_bytes + (1 << 20) - 1) >> 20) + " MiB";
}

}  // namespace

DeviceMemory allocate_device(int64_t n_bytes, const std::string& purpose) {
  void* pointer = nullptr;
  const cudaError_t status = cudaMalloc(&pointer, static_cast<size_t>(n_bytes > 0 ? n_bytes : 1));
  check_cuda(status, "allocating " + mebibytes(n_bytes) + " of GPU memory for " + purpose);
  return DeviceMemory(static_cast<std::byte*>(pointer));
}

PinnedMemory allocate_pinned(int64_t n_bytes, const std::string& purpose) {
  void* pointer = nullptr;
  const cudaError_t status =
      cudaHostAlloc(&pointer, static_cast<size_t>(n_bytes > 0 ? n_bytes : 1), cudaHostAllocDefault);
  check_cuda(status, "allocating " + mebibytes(n_bytes) + " of pinned memory for " + purpose);
  return PinnedMemory(static_cast<std::byte*>(pointer));
}

std::byte* DeviceArena::allocate(int64_t n_bytes, const std::string& purpose) {
  constexpr int64_t kAlignment = 256;
  const int64_t size = (n_bytes + kAlignment - 1) / kAlignment * kAlignment;
  used_bytes_ += size;
  if (size >= chunk_bytes_) {
    chunks_.push_back(allocate_device(size, purpose));
    return chunks_.back().get();
  }
  if (size > free_bytes_) {
    chunks_.push_back(allocate_device(chunk_bytes_, purpose));
    free_ = chunks_.back().get();
    free_bytes_ = chunk_bytes_;
  }
  std::byte* piece = free_;
  free_ += size;
  free_bytes_ -= size;
  return piece;
}

}  // namespace dsctl::engine::cuda
