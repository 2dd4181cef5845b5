#include "engine/cpu/fast/panel_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <new>

namespace dsctl::engine::fast {
namespace {

// A decode step reads every weight once: with 4 KiB pages each page costs a walk of the page table,
// and the hardware prefetcher stops at its end.
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kCacheLine = 64;

}  // namespace

void FreePanelMemory::operator()(std::byte* memory) const {
  std::free(memory);
}

PanelMemory allocate_panels(size_t size_bytes) {
  const bool huge = size_bytes >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : kCacheLine;
  const size_t rounded = (size_bytes + kCacheLine - 1) / kCacheLine * kCacheLine;
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, rounded) != 0) throw std::bad_alloc();
  if (huge) madvise(memory, rounded / kHugePage * kHugePage, MADV_HUGEPAGE);  // a wish: may fail
  return PanelMemory(static_cast<std::byte*>(memory), FreePanelMemory{rounded});
}

void release_mapped_pages(const std::byte* begin, const std::byte* end) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t first = (reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page;
  const uintptr_t last = reinterpret_cast<uintptr_t>(end) / page * page;
  if (first >= last) return;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);  // a wish: may fail
}

}  // namespace dsctl::engine::fast
