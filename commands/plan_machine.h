// The machine that a plan is for: this one, or one that is described.
#pragma once

#include <string>

#include "engine/memory_plan.h"

namespace dsctl::commands {

/// This machine: its GPUs, with the bandwidths that their data sheets give, and its memory. The
/// bandwidth of memory is measured, for about a tenth of a second, where there is no GPU.
engine::Machine this_machine();

/// A machine of these GPUs ("8xH800", "4x24GB@936"; may be empty) and memory ("64GB", "512GB@300";
/// may be empty), of whose processor nothing is known. Throws Error saying what is wrong.
engine::Machine described_machine(const std::string& gpus, const std::string& ram);

/// "8 x H800 (80 GiB, 3350 GB/s each)", "memory, 64 GiB at 40 GB/s, 8 cores".
std::string machine_text(const engine::Machine& machine);

/// "80 GiB", "1.5 GiB".
std::string format_gib(int64_t size_bytes);

}  // namespace dsctl::commands
