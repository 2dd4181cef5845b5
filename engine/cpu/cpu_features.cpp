#include "engine/cpu/cpu_features.h"

#include <sched.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>
#include <string_view>

#include "gguf/quants/encode.h"

namespace dsctl::engine {
namespace {

std::string read_line(const std::string& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

/// Cores, not hardware threads, in the affinity mask: two threads of one core share its vector
/// units, so a second one slows matrix products down rather than up.
int count_physical_cores() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) != 0) return 1;
  std::set<std::string> cores;
  int n_unknown = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &mask)) continue;
    const std::string base = "/sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/";
    const std::string siblings = read_line(base + "thread_siblings_list");
    if (siblings.empty()) {
      ++n_unknown;
    } else {
      cores.insert(siblings);
    }
  }
  const int n = static_cast<int>(cores.size()) + n_unknown;
  return n > 0 ? n : 1;
}

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
  features.n_physical_cores = count_physical_cores();
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
