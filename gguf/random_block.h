// Random blocks that are valid in every tensor type: weights for tests and for measuring a model
// whose file is not here. A model of zeros would be too easy for caches and processors.
#pragma once

#include <cstddef>
#include <random>

#include "gguf/dtype.h"

namespace dsctl::gguf {

/// Writes one block of `dtype` to `block`: encoded values of N(0, std_dev) where there is an
/// encoder, else random bits, drawn again until the values are of a size that occurs in models.
void random_block(DType dtype, float std_dev, std::byte* block, std::mt19937_64& random);

}  // namespace dsctl::gguf
