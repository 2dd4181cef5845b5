// The CUDA back end as the rest of the engine sees it: a library opened at run time, or a plain
// reason why it isn't used. Nothing here needs CUDA's headers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "engine/ops.h"

namespace dsctl::engine {

struct CudaDevice {
  int index = 0;
  std::string name;
  int compute_major = 0;
  int compute_minor = 0;
  int n_multiprocessors = 0;
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;
  int64_t l2_bytes = 0;
};

struct CudaStatus {
  bool available = false;      // the library is loaded and there is at least one device
  std::string reason;          // when not: no library, no driver, driver too old, no device
  std::string driver_version;  // "13.0"
  std::string runtime_version;
  std::vector<CudaDevice> devices;
};

/// Opens the CUDA library and asks for devices. DSCTL_CUDA_LIBRARY names another file than the one
/// that is installed with the program. Never throws: absence is an answer.
CudaStatus query_cuda();

struct CudaOpsRequest {
  int device_idx = 0;
  int max_tokens = 0;   // of one step
  int max_rows = 0;     // of logits in one step, and sequences
  int max_context = 0;  // tokens of one sequence
};

/// One GPU's operations, of the library that query_cuda opened. For debugging,
/// DSCTL_CUDA_SYNC=1 waits for every kernel and names the one that fails, DSCTL_CUDA_GRAPHS=0 and
/// DSCTL_CUDA_PDL=0 do without graphs and dependent launch, DSCTL_CUDA_EXACT=0 takes 8-bit inputs.
/// Throws Error when the library was built with other headers or another compiler, or when the
/// device can't be used.
std::unique_ptr<Ops> make_cuda_ops(const CudaOpsRequest& request);

}  // namespace dsctl::engine
