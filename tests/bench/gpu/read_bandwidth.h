// The yardstick of the GPU benchmarks.
#pragma once

/// GB/s at which the current device reads 2 GiB of its memory, the best of several grids.
double read_bandwidth_gb_s();
