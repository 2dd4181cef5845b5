#include "commands/version.h"

#include <string>

#include "engine/cpu/cpu_features.h"
#include "engine/cuda/cuda_library.h"

namespace dsctl::commands {

std::string version_text() {
  return "dsctl " DSCTL_VERSION;
}

int version(const VersionOptions& options, Console& console) {
  console.print(version_text() + "\n");
  if (!options.verbose) return 0;
  console.print("cpu: " + engine::cpu_features().description() + "\n");
  const engine::CudaStatus cuda = engine::query_cuda();
  if (!cuda.available) {
    console.print("cuda: not used: " + cuda.reason + "\n");
    return 0;
  }
  console.print("cuda: driver " + cuda.driver_version + ", runtime " + cuda.runtime_version + "\n");
  for (const engine::CudaDevice& device : cuda.devices) {
    console.print("gpu " + std::to_string(device.index) + ": " + device.name + ", compute " +
                  std::to_string(device.compute_major) + "." +
                  std::to_string(device.compute_minor) + ", " +
                  std::to_string(device.n_multiprocessors) + " multiprocessors, " +
                  std::to_string(device.total_bytes / 1'000'000) + " MB (" +
                  std::to_string(device.free_bytes / 1'000'000) + " MB free)\n");
  }
  return 0;
}

}  // namespace dsctl::commands
