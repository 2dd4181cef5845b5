// The headers of well-known models, for tests: gigabytes that need no disk.
#pragma once

#include "engine/model_shapes.h"

namespace dsctl::tests {

using engine::dense_header;
using engine::DenseModel;
using engine::kGemma3_1b;
using engine::kLlama3_70b;
using engine::kLlama3_8b;
using engine::kQwen2_14b;
using engine::kQwen2_1b;
using engine::kQwen2_32b;
using engine::kQwen2_7b;
using engine::open_header;
using engine::r1_header;

}  // namespace dsctl::tests
