#include "commands/machine.h"

#include <fstream>
#include <numeric>

#include "commands/model_info.h"
#include "engine/cuda/cuda_library.h"

namespace dsctl::commands {
namespace {

int64_t total_of(const std::vector<int64_t>& sizes) {
  return std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
}

}  // namespace

MachineMemory read_machine_memory() {
  MachineMemory memory;
  std::ifstream file("/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  std::string unit;
  while (file >> key >> kibibytes) {
    if (key == "MemTotal:") memory.ram_bytes = kibibytes * 1024;
    std::getline(file, unit);
  }
  for (const engine::CudaDevice& device : engine::query_cuda().devices)
    memory.gpu_bytes.push_back(device.total_bytes);
  return memory;
}

int64_t needed_bytes(int64_t size_bytes) {
  return size_bytes + size_bytes / 10;
}

ModelFit fit_of(int64_t size_bytes, const MachineMemory& memory) {
  const int64_t needed = needed_bytes(size_bytes);
  if (needed <= total_of(memory.gpu_bytes)) return ModelFit::kGpus;
  if (memory.ram_bytes == 0) return ModelFit::kUnknown;
  return needed <= memory.ram_bytes ? ModelFit::kRam : ModelFit::kTooLarge;
}

std::string fit_text(int64_t size_bytes, const MachineMemory& memory) {
  const std::string ram = "memory (" + format_size(memory.ram_bytes) + ")";
  const size_t n_gpus = memory.gpu_bytes.size();
  const std::string gpus = std::to_string(n_gpus) + (n_gpus == 1 ? " GPU (" : " GPUs (") +
                           format_size(total_of(memory.gpu_bytes)) + ")";
  switch (fit_of(size_bytes, memory)) {
    case ModelFit::kGpus:
      return "fits " + gpus;
    case ModelFit::kRam:
      return "fits " + ram;
    case ModelFit::kTooLarge:
      return "too large: needs " + format_size(needed_bytes(size_bytes)) + ", here are " + ram +
             (n_gpus > 0 ? " and " + gpus : "");
    case ModelFit::kUnknown:
      return "unknown";
  }
  return "";
}

}  // namespace dsctl::commands
