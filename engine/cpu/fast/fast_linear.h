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
/// are quantised to 8 bits in blocks of 32 for quantised weights and stay f32 for others.
void linear(const LinearIsa& isa, LinearInput& input, std::span<const LinearOutput> outputs,
            ThreadPool& pool);

}  // namespace dsctl::engine::fast
