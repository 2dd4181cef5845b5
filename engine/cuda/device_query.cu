// Device query: the first functions of the CUDA library. See cuda_api.h.
#include <cuda_runtime.h>

#include <cstdio>
#include <cstring>

#include "engine/cuda/cuda_api.h"

#define DSCTL_CUDA_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

int32_t fail(cudaError_t status, const char* what, char* error, int32_t error_size) {
  std::snprintf(error, static_cast<size_t>(error_size), "%s: %s", what, cudaGetErrorString(status));
  return -1;
}

}  // namespace

DSCTL_CUDA_EXPORT int32_t dsctl_cuda_versions(DsctlCudaVersions* versions) {
  versions->api_version = kDsctlCudaApiVersion;
  int version = 0;
  versions->driver = cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
  versions->runtime = cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
  return 0;
}

DSCTL_CUDA_EXPORT int32_t dsctl_cuda_device_count(char* error, int32_t error_size) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorNoDevice) return 0;
  if (status != cudaSuccess) return fail(status, "counting devices", error, error_size);
  return count;
}

DSCTL_CUDA_EXPORT int32_t dsctl_cuda_device(int32_t index, DsctlCudaDevice* device, char* error,
                                            int32_t error_size) {
  cudaDeviceProp properties;
  cudaError_t status = cudaGetDeviceProperties(&properties, index);
  if (status != cudaSuccess) return fail(status, "reading device properties", error, error_size);
  status = cudaSetDevice(index);
  if (status != cudaSuccess) return fail(status, "selecting the device", error, error_size);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  status = cudaMemGetInfo(&free_bytes, &total_bytes);
  if (status != cudaSuccess) return fail(status, "reading free memory", error, error_size);
  std::memset(device, 0, sizeof(*device));
  std::snprintf(device->name, sizeof(device->name), "%s", properties.name);
  device->compute_major = properties.major;
  device->compute_minor = properties.minor;
  device->n_multiprocessors = properties.multiProcessorCount;
  device->total_bytes = static_cast<int64_t>(total_bytes);
  device->free_bytes = static_cast<int64_t>(free_bytes);
  device->l2_bytes = properties.l2CacheSize;
  return 0;
}
