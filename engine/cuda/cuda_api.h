// The C interface of the CUDA library: what dlopen finds in it. Plain C types, so that the library
// and the program may be built by different compilers; `kCudaApiVersion` must match on both sides.
#pragma once

#include <cstdint>

extern "C" {

inline constexpr int32_t kDsctlCudaApiVersion = 1;

struct DsctlCudaDevice {
  char name[256];
  int32_t compute_major;
  int32_t compute_minor;
  int32_t n_multiprocessors;
  int64_t total_bytes;
  int64_t free_bytes;
  int64_t l2_bytes;
};

/// Versions as CUDA gives them (13000 for 13.0); 0 when unknown.
struct DsctlCudaVersions {
  int32_t api_version;
  int32_t driver;
  int32_t runtime;
};

/// Fills `versions`. Returns 0.
int32_t dsctl_cuda_versions(DsctlCudaVersions* versions);

/// Number of devices, or a negative number with a message in `error` (at most `error_size` bytes
/// with the terminating zero).
int32_t dsctl_cuda_device_count(char* error, int32_t error_size);

/// Describes device `index`. Returns 0, or a negative number with a message in `error`.
int32_t dsctl_cuda_device(int32_t index, DsctlCudaDevice* device, char* error, int32_t error_size);

}  // extern "C"
