#include "engine/cpu/cpu_features.h"

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string_view>

#include "engine/cpu/cpu_topology.h"
#include "gguf/quants/encode.h"

namespace dsctl::engine {
namespace {

std::string read_model_name() {
  std::ifstream in("/proc/cpuinfo");
  for (std::string line; std::getline(in, line);) {
    if (line.rfind("model name", 0) != 0) continue;
    const size_t colon = line.find(": ");
    if (colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown processor";
}

CpuFeatures detect() {
  CpuFeatures features;
  features.model = read_model_name();
  features.n_physical_cores = read_cpu_topology("/", affinity_cpus()).n_threads();
#if defined(__x86_64__)
  __builtin_cpu_init();
  // The encoders' AVX2 means F16C as well.
  features.avx2 = gguf::has_encoder_isa(gguf::EncoderIsa::kAvx2) && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("bmi2");
  features.avx512_vnni = features.avx2 && __builtin_cpu_supports("avx512f") &&
                         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni");
#endif
  if (const char* limit = std::getenv("DSCTL_CPU")) {
    const std::string_view name = limit;
    if (name == "reference") features.avx2 = false;
    if (name == "reference" || name == "avx2") features.avx512_vnni = false;
  }
  return features;
}

}  // namespace

std::string CpuFeatures::description() const {
  const char* isa = avx512_vnni ? "AVX-512 VNNI" : avx2 ? "AVX2" : "no vector kernels";
  return model + ", " + std::to_string(n_physical_cores) +
         (n_physical_cores == 1 ? " core, " : " cores, ") + isa;
}

const CpuFeatures& cpu_features() {
  static const CpuFeatures features = detect();
  return features;
}

}  // namespace dsctl::engine
