// Attention of the fast path, and the write of keys and values in the layout that it reads.
#pragma once

#include "engine/cpu/attention.h"
#include "engine/cpu/fast/isa.h"
#include "engine/cpu/rope.h"

namespace dsctl::engine::fast {

/// True when the fast attention takes pages of this shape: blocks of whole groups of 16 positions,
/// heads of whole vectors. Then keys lie in a block as (block_size / 16, head_dim, 16): a vector is
/// one dimension of 16 keys. Values lie as the reference has them.
bool takes_pages(const KvPages& kv);

/// rope_store_reference, with keys in that layout.
void rope_store(const VectorIsa& isa, const RopeStoreArgs& args, ThreadPool& pool);

/// attention_reference, on pages that rope_store above filled.
void attention(const AttentionIsa& isa, const AttentionArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine::fast
