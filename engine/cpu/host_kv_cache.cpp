#include "engine/cpu/host_kv_cache.h"

#include <sys/mman.h>

#include <cassert>
#include <string>

#include "engine/error.h"

namespace dsctl::engine {

HostKvCache::HostKvCache(const KvLayout& layout) : layout_(layout) {
  const auto n_bytes = static_cast<size_t>(layout.total_bytes());
  void* data = mmap(nullptr, n_bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data == MAP_FAILED) {
    throw Error("kv cache of " + std::to_string(layout.n_blocks) +
                " blocks: " + std::to_string(n_bytes) +
                " bytes can't be mapped, give a shorter context or fewer blocks");
  }
  data_ = static_cast<std::byte*>(data);
}

HostKvCache::~HostKvCache() {
  munmap(data_, static_cast<size_t>(layout_.total_bytes()));
}

KvPages HostKvCache::layer(int layer_idx) const {
  assert(layer_idx >= 0 && layer_idx < layout_.n_layers && layout_.shape.latent_dim == 0);
  const int64_t half_bytes = layout_.total_bytes() / layout_.n_layers / 2;
  KvPages pages;
  pages.dtype = layout_.dtype;
  pages.k = data_ + 2 * layer_idx * half_bytes;
  pages.v = pages.k + half_bytes;
  pages.block_size = layout_.block_size;
  pages.n_kv_heads = layout_.shape.n_kv_heads;
  pages.head_dim = layout_.shape.head_dim;
  return pages;
}

LatentPages HostKvCache::latent_layer(int layer_idx) const {
  assert(layer_idx >= 0 && layer_idx < layout_.n_layers && layout_.shape.latent_dim > 0);
  return {.dtype = layout_.dtype,
          .rows = data_ + layout_.total_bytes() / layout_.n_layers * layer_idx,
          .block_size = layout_.block_size,
          .n_cols = layout_.shape.latent_dim};
}

}  // namespace dsctl::engine
