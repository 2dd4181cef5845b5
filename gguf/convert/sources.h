// The tensors of a checkpoint as weights: plain ones, FP8 with scales, AWQ and GPTQ. Internal to
// gguf/convert.
#pragma once

#include <vector>

#include "gguf/convert/architecture.h"
#include "gguf/convert/safetensors.h"

namespace dsctl::gguf::convert {

/// What quantization_config asks for, for people: "", "fp8", "awq", "gptq".
std::string quantization_method(const HfConfig& config);

/// The weights of `checkpoint` that `architecture` wants, in order of file and name (those of GPTQ
/// after all others), without the prefix of a language model inside a larger one. Views of
/// `checkpoint`. Throws Error naming the tensor or field: a method or a variant of one that is not
/// supported, a part that is missing.
std::vector<SourceWeight> read_sources(const Checkpoint& checkpoint, const HfConfig& config,
                                       const Architecture& architecture);

}  // namespace dsctl::gguf::convert
