// Latent attention of the fast path.
#pragma once

#include <cstdint>

#include "engine/cpu/fast/isa.h"
#include "engine/cpu/mla.h"

namespace dsctl::engine::fast {

/// True for f32 rows with a latent of whole vectors.
bool takes_latent_pages(const MlaAttentionArgs& args);

/// mla_attention_reference, on the same pages.
void mla_attention(const MlaIsa& isa, const MlaAttentionArgs& args, ThreadPool& pool);

}  // namespace dsctl::engine::fast
