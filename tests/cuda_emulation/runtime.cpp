#include <cuda_runtime.h>

namespace emulation {
namespace {

int n_calls_left = -1;

}  // namespace

void fail_after(int n_calls) {
  n_calls_left = n_calls;
}

cudaError_t status() {
  if (n_calls_left < 0) return cudaSuccess;
  if (n_calls_left == 0) return cudaErrorIllegalAddress;
  --n_calls_left;
  return cudaSuccess;
}

}  // namespace emulation
