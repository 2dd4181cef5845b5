// How fast this machine's processors read its memory: the limit of decoding, measured.
#pragma once

#include <cstdint>

namespace dsctl::engine {

struct MemoryBandwidth {
  double read_gb_s = 0;  // the best of several passes, 10^9 bytes a second
  int n_threads = 0;
  int64_t buffer_bytes = 0;  // more than the caches hold
  int64_t cache_bytes = 0;   // of the last level; 0: unknown
};

/// Reads a buffer with `n_threads` threads as the engine's own read weights: on huge pages, each
/// thread its share from front to back. Takes about a second. Throws std::bad_alloc.
MemoryBandwidth measure_memory_bandwidth(int n_threads);

}  // namespace dsctl::engine
