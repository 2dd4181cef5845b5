// The part of the library's interface that hands out C++ objects. See cuda_api.h.
#include <cstdio>
#include <exception>

#include "engine/cuda/cuda_api.h"
#include "engine/cuda/cuda_ops.h"

#define DSCTL_CUDA_EXPORT extern "C" __attribute__((visibility("default")))

DSCTL_CUDA_EXPORT const char* dsctl_cuda_abi() {
  return DSCTL_CUDA_ABI;
}

DSCTL_CUDA_EXPORT int32_t dsctl_cuda_create_ops(const DsctlCudaOpsOptions* options, void** ops,
                                                char* error, int32_t error_size) {
  try {
    dsctl::engine::CudaOpsOptions own;
    own.device_idx = options->device_idx;
    own.max_tokens = options->max_tokens;
    own.max_rows = options->max_rows;
    own.max_context = options->max_context;
    own.exact_inputs = options->exact_inputs != 0;
    own.use_graphs = options->use_graphs != 0;
    own.stream.dependent_launch = options->dependent_launch != 0;
    own.stream.sync_each_kernel = options->sync_each_kernel != 0;
    dsctl::engine::Ops* made = new dsctl::engine::CudaOps(own);
    *ops = made;
    return 0;
  } catch (const std::exception& failure) {
    std::snprintf(error, static_cast<size_t>(error_size), "%s", failure.what());
    return -1;
  }
}
