// The CUDA back end as the rest of the engine sees it: a library opened at run time, or a plain
// reason why it isn't used. Nothing here needs CUDA's headers.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

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

}  // namespace dsctl::engine
