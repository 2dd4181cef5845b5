#include "tests/cuda/device.h"

#include <cuda_runtime.h>

#include <cstdlib>

namespace dsctl::tests {

bool is_emulated() {
#ifdef DSCTL_CUDA_EMULATION
  return true;
#else
  return false;
#endif
}

void reverse_threads([[maybe_unused]] bool reverse) {
#ifdef DSCTL_CUDA_EMULATION
  emulation::set_order(reverse ? emulation::Order::kReverse : emulation::Order::kForward);
#endif
}

engine::CudaOpsOptions cuda_options() {
  // For a run of all tests with the threads of each block in descending order.
  static const bool reversed = std::getenv("DSCTL_TEST_REVERSE_THREADS") != nullptr;
  if (reversed) reverse_threads(true);
  engine::CudaOpsOptions options;
  options.max_tokens = 40;
  options.max_rows = 40;
  options.max_context = 64;
  options.stream.dependent_launch = true;
  // For finding the kernel that fails; graphs can't be waited for in the middle.
  options.stream.sync_each_kernel = std::getenv("DSCTL_TEST_CUDA_SYNC") != nullptr;
  options.arena_chunk_bytes = 0;
  return options;
}

}  // namespace dsctl::tests
