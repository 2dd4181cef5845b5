// Memory for repacked weights: aligned to cache lines, on huge pages where it is large; and the
// way to give back the mapped pages that they were made from.
#pragma once

#include <cstddef>
#include <memory>

namespace dsctl::engine::fast {

struct FreePanelMemory {
  size_t size_bytes = 0;
  void operator()(std::byte* memory) const;
};
using PanelMemory = std::unique_ptr<std::byte[], FreePanelMemory>;

/// Uninitialised memory. Throws std::bad_alloc.
PanelMemory allocate_panels(size_t size_bytes);

/// Takes the whole pages of [begin, end), which lie in a read-only mapping of a file, out of this
/// process's memory; the system keeps or drops them as it likes.
void release_mapped_pages(const std::byte* begin, const std::byte* end);

}  // namespace dsctl::engine::fast
