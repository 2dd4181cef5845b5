// Token embedding on the CPU.
#pragma once

#include <cstdint>

#include "engine/cpu/thread_pool.h"
#include "engine/tensor.h"

namespace dsctl::engine {

/// x[t] = table[token_ids[t]] * scale, dequantised where it lies.
void embed(const MutableRows& x, const MatrixView& table, const int32_t* token_ids, float scale,
           ThreadPool& pool);

}  // namespace dsctl::engine
