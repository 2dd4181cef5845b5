// Which instruction sets this processor has, asked once, so that kernels are chosen at run time.
#pragma once

#include <string>

namespace dsctl::engine {

struct CpuFeatures {
  bool avx2 = false;         // AVX2, FMA, F16C and BMI2 together
  bool avx512_vnni = false;  // AVX-512 F, BW, VL, DQ and VNNI together
  std::string model;         // "AMD EPYC 9654" as the processor names itself
  int n_physical_cores = 1;  // that this process may keep busy: CpuTopology::n_threads

  /// "AMD EPYC 9654, 2 cores, AVX-512 VNNI".
  std::string description() const;
};

/// The processor's features. Thread-safe. DSCTL_CPU=reference|avx2|avx512 lowers them (for tests
/// and for comparing kernels); it never raises them.
const CpuFeatures& cpu_features();

}  // namespace dsctl::engine
