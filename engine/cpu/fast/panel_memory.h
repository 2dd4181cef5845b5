// Memory for repacked weights: aligned to cache lines, on huge pages where it is large.
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

}  // namespace dsctl::engine::fast
