// The fast set of CPU kernels.
#pragma once

#include "engine/cpu/kernels.h"

namespace dsctl::engine::fast {

/// The set for the widest vectors of this processor (as cpu_features() sees it), or null when it
/// has none that the fast path knows.
const KernelSet* fast_kernels();

}  // namespace dsctl::engine::fast
