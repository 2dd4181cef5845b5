// Quantising on the way: the types and the order that llama-quantize gives a converted file, so
// that `convert --quantize TYPE` writes what convert and quantize would. Internal to gguf/convert.
#pragma once

#include <cstddef>
#include <vector>

#include "gguf/convert/convert.h"

namespace dsctl::gguf::convert {

struct MixtureChoice {
  size_t tensor_idx = 0;  // of the converted tensors
  DType dtype = DType::F32;
};

/// The choices for a file of `metadata` and `tensors` in 16 or 32 bits, in the order of the result.
/// Throws Error when a type can't be written.
std::vector<MixtureChoice> choose_mixture(const MetadataList& metadata,
                                          const std::vector<ConvertedTensor>& tensors,
                                          const FileType& file_type);

}  // namespace dsctl::gguf::convert
