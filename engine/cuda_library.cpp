#include "engine/cuda/cuda_library.h"

#include <dlfcn.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>

#include "engine/cuda/cuda_api.h"
#include "engine/error.h"

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

/// The open library, or null with the reason. The handle is kept: CUDA does not survive being
/// unloaded and loaded again.
void* open_library(std::string& path, std::string& reason) {
  path = find_library();
  if (path.empty()) {
    reason = std::string(kLibraryName) +
             " is not installed (package dsctl-cuda, or a build with a CUDA toolkit)";
    return nullptr;
  }
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) reason = std::string("cannot load the CUDA library: ") + dlerror();
  return library;
}

bool is_set_to(const char* variable, char value) {
  const char* text = std::getenv(variable);
  return text != nullptr && text[0] == value && text[1] == '\0';
}

}  // namespace

CudaStatus query_cuda() {
  CudaStatus status;
  std::string path;
  void* library = open_library(path, status.reason);
  if (!library) return status;
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

std::unique_ptr<Ops> make_cuda_ops(const CudaOpsRequest& request) {
  std::string path;
  std::string reason;
  void* library = open_library(path, reason);
  if (!library) throw Error("cuda: " + reason);
  const auto abi = reinterpret_cast<decltype(&dsctl_cuda_abi)>(dlsym(library, "dsctl_cuda_abi"));
  const auto create =
      reinterpret_cast<decltype(&dsctl_cuda_create_ops)>(dlsym(library, "dsctl_cuda_create_ops"));
  const std::string found = abi != nullptr ? abi() : "none";
  if (create == nullptr || found != DSCTL_CUDA_ABI) {
    throw Error("cuda: " + path + ": built as " + found +
                ", expected " DSCTL_CUDA_ABI "; install the library that came with this program");
  }
  const bool sync = is_set_to("DSCTL_CUDA_SYNC", '1');
  const DsctlCudaOpsOptions options{
      .device_idx = request.device_idx,
      .max_tokens = request.max_tokens,
      .max_rows = request.max_rows,
      .max_context = request.max_context,
      .exact_inputs = !is_set_to("DSCTL_CUDA_EXACT", '0') ? 1 : 0,
      .use_graphs = !sync && !is_set_to("DSCTL_CUDA_GRAPHS", '0') ? 1 : 0,
      .dependent_launch = !is_set_to("DSCTL_CUDA_PDL", '0') ? 1 : 0,
      .sync_each_kernel = sync ? 1 : 0,
  };
  std::array<char, 512> error{};
  void* ops = nullptr;
  if (create(&options, &ops, error.data(), static_cast<int>(error.size())) != 0) {
    throw Error(error.data());
  }
  return std::unique_ptr<Ops>(static_cast<Ops*>(ops));
}

}  // namespace dsctl::engine
