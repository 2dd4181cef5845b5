// The KV cache's pages in host memory.
#pragma once

#include <cstddef>

#include "engine/cpu/attention.h"
#include "engine/kv_cache.h"

namespace dsctl::engine {

/// Pages in host memory. They are mapped, not touched: memory is used as blocks are filled.
class HostKvCache {
 public:
  /// Throws Error when the address space can't be mapped.
  explicit HostKvCache(const KvLayout& layout);
  ~HostKvCache();
  HostKvCache(const HostKvCache&) = delete;
  HostKvCache& operator=(const HostKvCache&) = delete;

  const KvLayout& layout() const { return layout_; }
  KvPages layer(int layer_idx) const;

 private:
  KvLayout layout_;
  std::byte* data_ = nullptr;  // (n_layers, 2, n_blocks, n_kv_heads, block_size, head_dim)
};

}  // namespace dsctl::engine
