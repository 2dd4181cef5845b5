#include "engine/kv_cache.h"

#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <limits>
#include <string>

#include "engine/error.h"

namespace dsctl::engine {

int64_t KvLayout::block_bytes() const {
  return gguf::row_size_bytes(dtype, n_layers * block_size * shape.n_values());
}

KvCacheType parse_kv_cache_type(std::string_view name) {
  if (name == "auto") return KvCacheType::kAuto;
  if (name == "f32" || name == "float32") return KvCacheType::kF32;
  if (name == "f16" || name == "float16") return KvCacheType::kF16;
  throw Error("kv cache type \"" + std::string(name) + "\", expected auto, f16 or f32");
}

int choose_n_kv_blocks(const EngineOptions& options, int max_model_len, int64_t block_bytes,
                       int64_t free_bytes) {
  if (options.n_kv_blocks > 0) return options.n_kv_blocks;
  const int64_t per_sequence = (max_model_len + options.block_size - 1) / options.block_size;
  const int64_t affordable =
      std::max<int64_t>(1, free_bytes / 4 / std::max<int64_t>(1, block_bytes));
  const int64_t wanted = std::min(per_sequence * options.max_num_seqs, affordable);
  // Slots are 32-bit numbers.
  const int64_t addressable = std::numeric_limits<int32_t>::max() / options.block_size;
  return static_cast<int>(std::min(std::max(wanted, per_sequence), addressable));
}

int64_t free_host_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  std::string unit;
  while (meminfo >> key >> kibibytes >> unit) {
    if (key == "MemAvailable:") return kibibytes * 1024;
  }
  return sysconf(_SC_AVPHYS_PAGES) * static_cast<int64_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace dsctl::engine
