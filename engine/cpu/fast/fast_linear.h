// Linear layers of the fast path: weights repacked into panels at load, inputs quantised once.
#pragma once

#include <memory>
#include <span>

#include "engine/cpu/fast/isa.h"
#include "engine/cpu/linear.h"
#include "engine/cpu/weight_arena.h"

namespace dsctl::engine::fast {

/// Repacks `matrix` into `arena`; its bytes are not read again, except for types without a panel
/// form, which are dequantised where they lie in every call.
std::unique_ptr<LinearWeight> make_weight(const LinearIsa& isa, const MatrixView& matrix,
                                          WeightArena& arena);

std::unique_ptr<LinearInput> make_input(const LinearIsa& isa, const VectorIsa& vector_isa,
                                        int max_tokens, int64_t max_cols, int n_threads);

/// `input` and the weights are those of the two functions above, with the same `isa`. Activations
/// are quantised to 16 bits in blocks of 32 for quantised weights and stay f32 for others. (8 bits,
/// as llama.cpp has them, made prompts up to 1.45 times as fast and generation not measurably, but
/// turned near-ties: mean KL to the reference 3e-3 where 16 bits have 5e-8.)
void linear(const LinearIsa& isa, LinearInput& input, std::span<const LinearOutput> outputs,
            ThreadPool& pool);

}  // namespace dsctl::engine::fast
