// What each tensor type of a model takes together.
#pragma once

#include <cstdint>
#include <vector>

#include "gguf/gguf_file.h"

namespace dsctl::gguf {

struct TypeTotal {
  DType dtype = DType::F32;
  int64_t n_tensors = 0;
  int64_t size_bytes = 0;
};

/// One for each type of the file's tensors, the largest first.
std::vector<TypeTotal> type_totals(const GgufFile& file);

}  // namespace dsctl::gguf
