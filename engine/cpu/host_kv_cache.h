// The KV cache's pages in host memory.
#pragma once

#include <cstddef>

#include "engine/cpu/attention.h"
#include "engine/cpu/mla.h"
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
  /// A layer's keys and values, or its latent rows: as the layout's shape says.
  KvPages layer(int layer_idx) const;
  LatentPages latent_layer(int layer_idx) const;

 private:
  KvLayout layout_;
  // (n_layers, 2, n_blocks, n_kv_heads, block_size, head_dim), or
  // (n_layers, n_blocks, block_size, latent_dim)
  std::byte* data_ = nullptr;
};

}  // namespace dsctl::engine
