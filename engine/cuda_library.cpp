#include "engine/cuda/cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "engine/cuda/cuda_api.h"

namespace dsctl::engine {
namespace {

constexpr const char* kLibraryName = "libdsctl_cuda.so";

/// Beside the program (a build directory), in ../lib/dsctl (a package or a bundle), or where
/// DSCTL_CUDA_LIBRARY says. The current directory and LD_LIBRARY_PATH are not searched: a library
/// that is loaded by accident is somebody else's code.
std::string find_library() {
  if (const char* path = std::getenv("DSCTL_CUDA_LIBRARY")) return path;
  std::array<char, 4096> buffer{};
  const ssize_t length = readlink("/proc/self/exe", buffer.data(), buffer.size() - 1);
  if (length <= 0) return {};
  const std::filesystem::path program_dir = std::filesystem::path(buffer.data()).parent_path();
  for (const auto& candidate :
       {program_dir / kLibraryName, program_dir / ".." / "lib" / "dsctl" / kLibraryName,
        std::filesystem::path("/usr/lib/dsctl") / kLibraryName}) {
    std::error_code ignored;
    if (std::filesystem::exists(candidate, ignored)) return candidate.string();
  }
  return {};
}

std::string version_string(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

}  // namespace

CudaStatus query_cuda() {
  CudaStatus status;
  const std::string path = find_library();
  if (path.empty()) {
    status.reason = std::string(kLibraryName) +
                    " is not installed (package dsctl-cuda, or a build with a CUDA toolkit)";
    return status;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    status.reason = std::string("cannot load the CUDA library: ") + dlerror();
    return status;
  }
  // The handle is kept: CUDA does not survive being unloaded and loaded again.
  const auto versions =
      reinterpret_cast<decltype(&dsctl_cuda_versions)>(dlsym(library, "dsctl_cuda_versions"));
  const auto count = reinterpret_cast<decltype(&dsctl_cuda_device_count)>(
      dlsym(library, "dsctl_cuda_device_count"));
  const auto describe =
      reinterpret_cast<decltype(&dsctl_cuda_device)>(dlsym(library, "dsctl_cuda_device"));
  if (!versions || !count || !describe) {
    status.reason = path + ": not a dsctl CUDA library (its functions are missing)";
    return status;
  }
  DsctlCudaVersions found{};
  versions(&found);
  if (found.api_version != kDsctlCudaApiVersion) {
    status.reason = path + ": interface version " + std::to_string(found.api_version) +
                    ", expected " + std::to_string(kDsctlCudaApiVersion) +
                    "; install the library that came with this program";
    return status;
  }
  status.driver_version = version_string(found.driver);
  status.runtime_version = version_string(found.runtime);
  if (found.driver == 0) {
    status.reason = "no NVIDIA driver is loaded (is nvidia-smi working?)";
    return status;
  }
  if (found.driver / 1000 < found.runtime / 1000) {
    status.reason = "the NVIDIA driver supports CUDA " + status.driver_version +
                    ", but the library needs " + status.runtime_version + "; update the driver";
    return status;
  }
  std::array<char, 512> error{};
  const int n_devices = count(error.data(), static_cast<int>(error.size()));
  if (n_devices < 0) {
    status.reason = error.data();
    return status;
  }
  if (n_devices == 0) {
    status.reason = "no CUDA device is visible (CUDA_VISIBLE_DEVICES?)";
    return status;
  }
  for (int index = 0; index < n_devices; ++index) {
    DsctlCudaDevice raw{};
    if (describe(index, &raw, error.data(), static_cast<int>(error.size())) != 0) {
      status.reason = "device " + std::to_string(index) + ": " + error.data();
      return status;
    }
    CudaDevice device;
    device.index = index;
    device.name = raw.name;
    device.compute_major = raw.compute_major;
    device.compute_minor = raw.compute_minor;
    device.n_multiprocessors = raw.n_multiprocessors;
    device.total_bytes = raw.total_bytes;
    device.free_bytes = raw.free_bytes;
    device.l2_bytes = raw.l2_bytes;
    status.devices.push_back(device);
  }
  status.available = true;
  return status;
}

}  // namespace dsctl::engine
