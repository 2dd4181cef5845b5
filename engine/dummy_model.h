// A model of which only the header is known, with random weights: for measuring sizes whose files
// are not here (`--load-format dummy`).
#pragma once

#include <cstdint>

#include "gguf/gguf_file.h"

namespace dsctl::engine {

struct DummyOptions {
  int n_layers = 0;  // 0: all
  uint64_t seed = 1;
  int n_threads = 1;
};

/// The model of `header` with its first n_layers layers, its keys, and random valid weights of its
/// tensors' types, in memory as if it were a file in the page cache. The same seed gives the same
/// bytes. Throws Error with the numbers when memory doesn't suffice for it and, once more, for the
/// weights as the CPU's kernels have them.
gguf::GgufFile make_dummy_model(const gguf::GgufFile& header, const DummyOptions& options);

}  // namespace dsctl::engine
