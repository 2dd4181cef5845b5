// Memory for weights in a form of their kernels' own, and the way to give back the mapped pages
// that they were made from.
#pragma once

#include <cstddef>
#include <memory>

namespace dsctl::engine {

/// A decode step reads every weight once, so weights lie on huge pages: with small ones each page
/// costs a walk of the page table and ends the hardware prefetcher's run (measured on one loaded
/// core: SmolLM2-135M decodes at 257 instead of 215 tokens per processor second). Weights smaller
/// than a huge page share slabs. Not thread-safe: one for each rank.
class WeightArena {
 public:
  /// Keeps its slab alive; the arena need not.
  using Memory = std::shared_ptr<std::byte>;

  /// Uninitialised memory, aligned to a cache line. Throws std::bad_alloc.
  Memory allocate(size_t size_bytes);

 private:
  Memory slab_;
  size_t slab_size_bytes_ = 0;
  size_t used_bytes_ = 0;
};

/// Takes the whole pages of [begin, end), which lie in a read-only mapping of a file, out of this
/// process's memory; the system keeps or drops them as it likes.
void release_mapped_pages(const std::byte* begin, const std::byte* end);

}  // namespace dsctl::engine
