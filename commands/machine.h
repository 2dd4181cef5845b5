// The memory of this machine, and whether a model fits into it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dsctl::commands {

struct MachineMemory {
  int64_t ram_bytes = 0;           // of the machine; 0: unknown
  std::vector<int64_t> gpu_bytes;  // of each GPU that can be used
};

/// Asks the system and the CUDA library. Never throws.
MachineMemory read_machine_memory();

enum class ModelFit { kGpus, kRam, kTooLarge, kUnknown };

/// What weights of `size_bytes` need while they run: a tenth more, for the KV cache of a usual
/// context and for work space.
int64_t needed_bytes(int64_t size_bytes);

/// Where a model with weights of `size_bytes` fits: all GPUs together, else the memory.
ModelFit fit_of(int64_t size_bytes, const MachineMemory& memory);

/// For people: "fits 8 GPUs (640 GB)", "fits memory (128 GB)", "too large: needs 444 GB, memory has
/// 128 GB".
std::string fit_text(int64_t size_bytes, const MachineMemory& memory);

}  // namespace dsctl::commands
