#include "commands/plan_machine.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <numeric>
#include <thread>
#include <vector>

#include "commands/error.h"
#include "engine/cpu/cpu_topology.h"
#include "engine/cuda/cuda_library.h"

namespace dsctl::commands {
namespace {

constexpr int64_t kMib = int64_t{1} << 20;
constexpr int64_t kGib = int64_t{1} << 30;

int64_t host_memory_bytes() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  int64_t kibibytes = 0;
  std::string unit;
  while (meminfo >> key >> kibibytes >> unit) {
    if (key == "MemTotal:") return kibibytes * 1024;
  }
  return 0;
}

/// How fast all cores together read memory, in GB/s.
double measure_bandwidth_gb_s() {
  const size_t n_threads = std::clamp<size_t>(std::thread::hardware_concurrency(), 1, 64);
  // More than the caches hold, together.
  const auto n_words = static_cast<size_t>(std::max<int64_t>(
                           16 * kMib, 256 * kMib / static_cast<int64_t>(n_threads))) /
                       sizeof(uint64_t);
  constexpr int kPasses = 3;
  std::vector<double> best(n_threads, 0);
  std::vector<uint64_t> sums(n_threads, 0);  // so that the reads are not left out
  {
    std::vector<std::jthread> threads;
    for (size_t t = 0; t < n_threads; ++t) {
      threads.emplace_back([&, t] {
        const std::vector<uint64_t> words(n_words, t + 1);
        for (int pass = 0; pass < kPasses; ++pass) {
          const auto start = std::chrono::steady_clock::now();
          sums[t] += std::accumulate(words.begin(), words.end(), uint64_t{0});
          const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
          best[t] = std::max(best[t], static_cast<double>(n_words * sizeof(uint64_t)) /
                                          std::max(time.count(), 1e-9));
        }
      });
    }
  }
  const bool counted = std::accumulate(sums.begin(), sums.end(), uint64_t{0}) > 0;
  return counted ? std::accumulate(best.begin(), best.end(), 0.0) / 1e9 : 0;
}

double parse_positive(std::string_view text, const std::string& whole) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size() || !(value > 0) ||
      value > 1e7) {
    throw Error("--ram " + whole + ": expected a size such as 64GB, or 512GB@300 with GB/s");
  }
  return value;
}

void parse_ram(std::string_view text, engine::Machine& machine) {
  const std::string whole(text);
  if (const size_t at = text.find('@'); at != std::string_view::npos) {
    machine.host_bandwidth_gb_s = parse_positive(text.substr(at + 1), whole);
    text = text.substr(0, at);
  }
  double factor = 1;
  for (const auto& [unit, scale] : {std::pair{"TiB", 1024.0},
                                    {"TB", 1024.0},
                                    {"T", 1024.0},
                                    {"GiB", 1.0},
                                    {"GB", 1.0},
                                    {"G", 1.0}}) {
    if (!text.ends_with(unit)) continue;
    text.remove_suffix(std::string_view(unit).size());
    factor = scale;
    break;
  }
  machine.host_bytes =
      static_cast<int64_t>(parse_positive(text, whole) * factor * static_cast<double>(kGib));
}

std::string number_text(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), value < 10 ? "%.1f" : "%.0f", value);
  std::string result = text;
  if (result.ends_with(".0")) result.resize(result.size() - 2);
  return result;
}

}  // namespace

engine::Machine this_machine() {
  engine::Machine machine;
  machine.host_bytes = host_memory_bytes();
  for (const engine::CudaDevice& device : engine::query_cuda().devices) {
    const engine::GpuCard* card = engine::find_card(device.name);
    machine.gpus.push_back(
        {device.name, device.total_bytes, card ? static_cast<double>(card->bandwidth_gb_s) : 0});
  }
  machine.host_cores = engine::read_cpu_topology("/", engine::affinity_cpus()).n_threads();
  if (machine.gpus.empty()) machine.host_bandwidth_gb_s = measure_bandwidth_gb_s();
  return machine;
}

engine::Machine described_machine(const std::string& gpus, const std::string& ram) {
  engine::Machine machine;
  if (!gpus.empty()) machine.gpus = engine::parse_gpus(gpus);
  if (!ram.empty()) parse_ram(ram, machine);
  return machine;
}

std::string format_gib(int64_t size_bytes) {
  return number_text(static_cast<double>(size_bytes) / static_cast<double>(kGib)) + " GiB";
}

std::string machine_text(const engine::Machine& machine) {
  if (machine.gpus.empty()) {
    return "memory, " + format_gib(machine.host_bytes) +
           (machine.host_bandwidth_gb_s > 0
                ? " at " + number_text(machine.host_bandwidth_gb_s) + " GB/s"
                : "") +
           (machine.host_cores > 0 ? ", " + std::to_string(machine.host_cores) +
                                         (machine.host_cores == 1 ? " core" : " cores")
                                   : "");
  }
  const engine::GpuSpec& gpu = machine.gpus[0];
  return std::to_string(machine.gpus.size()) + " x " + gpu.name + " (" +
         format_gib(gpu.memory_bytes) +
         (gpu.bandwidth_gb_s > 0 ? ", " + number_text(gpu.bandwidth_gb_s) + " GB/s" : "") +
         (machine.gpus.size() > 1 ? " each)" : ")");
}

}  // namespace dsctl::commands
