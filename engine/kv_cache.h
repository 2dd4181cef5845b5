// The KV cache's layout and size. Which block belongs to which sequence is the block manager's
// business, where the pages lie the device's.
#pragma once

#include <cstdint>
#include <string_view>

#include "engine/engine.h"
#include "gguf/dtype.h"

namespace dsctl::engine {

/// What a layer keeps of a token: a key and a value for each KV head, or, when latent_dim is given,
/// one row of so many values that is key and value of all heads (multi-head latent attention).
struct KvShape {
  int n_kv_heads = 0;  // this rank's
  int head_dim = 0;
  int latent_dim = 0;  // replicated: every rank has all of it

  /// Values of one token in one layer.
  int64_t n_values() const {
    return latent_dim > 0 ? latent_dim : int64_t{2} * n_kv_heads * head_dim;
  }
};

/// One rank's cache: for each layer keys and values, (n_blocks, n_kv_heads, block_size, head_dim)
/// each, or latent rows, (n_blocks, block_size, latent_dim).
struct KvLayout {
  gguf::DType dtype = gguf::DType::F32;  // F32 or F16
  int n_layers = 0;
  int n_blocks = 0;
  int block_size = 0;
  KvShape shape;

  /// Of all layers, keys and values.
  int64_t block_bytes() const;
  int64_t total_bytes() const { return block_bytes() * n_blocks; }
};

/// The type called "auto", "f32" (or "float32") or "f16" ("float16"). Throws Error listing them.
KvCacheType parse_kv_cache_type(std::string_view name);

/// Blocks for options.max_num_seqs sequences of `max_model_len`, within a quarter of `free_bytes`
/// (for all ranks: `block_bytes` counts them all) but never less than one full sequence has; or
/// options.n_kv_blocks when that is given.
int choose_n_kv_blocks(const EngineOptions& options, int max_model_len, int64_t block_bytes,
                       int64_t free_bytes);

/// Memory that this machine can still give without swapping.
int64_t free_host_bytes();

}  // namespace dsctl::engine
