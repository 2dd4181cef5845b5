#include "engine/cpu/weight_arena.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

namespace dsctl::engine {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kSlab = 8 * kHugePage;
constexpr size_t kCacheLine = 64;

size_t round_up(size_t size, size_t unit) {
  return (size + unit - 1) / unit * unit;
}

/// Whole huge pages where the system has them. Untouched pages take no memory.
WeightArena::Memory allocate_huge(size_t size_bytes) {
  void* memory = nullptr;
  const size_t rounded = round_up(size_bytes, kHugePage);
  if (posix_memalign(&memory, kHugePage, rounded) != 0) throw std::bad_alloc();
  madvise(memory, rounded, MADV_HUGEPAGE);  // a wish: may fail
  return {static_cast<std::byte*>(memory), [](std::byte* pointer) { std::free(pointer); }};
}

}  // namespace

WeightArena::Memory WeightArena::allocate(size_t size_bytes) {
  if (size_bytes > kSlab / 2) return allocate_huge(size_bytes);
  const size_t rounded = round_up(size_bytes, kCacheLine);
  if (slab_ == nullptr || used_bytes_ + rounded > slab_size_bytes_) {
    slab_ = allocate_huge(kSlab);
    slab_size_bytes_ = kSlab;
    used_bytes_ = 0;
  }
  Memory memory(slab_, slab_.get() + used_bytes_);
  used_bytes_ += rounded;
  return memory;
}

void release_mapped_pages(const std::byte* begin, const std::byte* end) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = round_up(reinterpret_cast<uintptr_t>(begin), page);
  const uintptr_t last = reinterpret_cast<uintptr_t>(end) / page * page;
  if (first >= last) return;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // a wish: may fail
}

}  // namespace dsctl::engine
