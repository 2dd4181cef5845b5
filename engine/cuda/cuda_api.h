// The C interface of the CUDA library: what dlopen finds in it. Devices are described in plain C
// types, whoever built the library; kDsctlCudaApiVersion must match on both sides. Ops, in
// contrast, are a C++ object: dsctl_cuda_abi() must equal the program's own text, which stands for
// the headers and the compiler, before one is asked for.
#pragma once

#include <cstdint>

extern "C" {

inline constexpr int32_t kDsctlCudaApiVersion = 2;

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

/// Text that is equal in a program and a library that were built of the same interface headers by
/// the same compiler.
const char* dsctl_cuda_abi();

struct DsctlCudaOpsOptions {
  int32_t device_idx;
  int32_t max_tokens;
  int32_t max_rows;
  int32_t max_context;
  int32_t exact_inputs;      // 0: 8-bit inputs of quantised weights instead of 16-bit ones
  int32_t use_graphs;        // 0: every kernel is started by itself
  int32_t dependent_launch;  // 0: every kernel waits for the one before
  int32_t sync_each_kernel;  // 1: for finding the kernel that fails
};

/// Makes a dsctl::engine::Ops, which the caller deletes. Returns 0, or a negative number with a
/// message in `error`.
int32_t dsctl_cuda_create_ops(const DsctlCudaOpsOptions* options, void** ops, char* error,
                              int32_t error_size);

}  // extern "C"
