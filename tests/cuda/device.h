// Where the kernels under test run: on a GPU in cuda_tests, on the host in cuda_emulated_tests.
#pragma once

#include "engine/cuda/cuda_ops.h"

namespace dsctl::tests {

/// Whether the host stands in for the GPU: then sizes are to be small.
bool is_emulated();
/// Threads of a block run in the other order from here on; nothing on a GPU.
void reverse_threads(bool reverse);
/// Small limits, every allocation of its own so that checkers see its end.
engine::CudaOpsOptions cuda_options();

}  // namespace dsctl::tests
