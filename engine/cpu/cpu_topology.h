// How many threads are worth starting: what the system lets this process use of the machine. A
// container sees all processors of its host, so counting those starts several times too many.
#pragma once

#include <filesystem>
#include <optional>
#include <vector>

namespace dsctl::engine {

/// What a process may use.
struct CpuTopology {
  /// Cores, not hardware threads, that its affinity mask reaches: two threads of one core share its
  /// vector units, so a second one slows matrix products down rather than up.
  int n_cores = 1;
  /// Processors' worth of time that its control group has in each period; nothing: no limit.
  std::optional<double> quota;

  /// Threads that run all the time, >= 1: one for each core, no more than the quota (to the nearest
  /// whole number), since a group that has used its time stands still until the next period.
  int n_threads() const;
};

/// The processors in this process's affinity mask.
std::vector<int> affinity_cpus();

/// Reads sys/devices/system/cpu, proc/self/cgroup and sys/fs/cgroup (version 2, or 1 with the cpu
/// controller mounted at cpu or cpu,cpuacct) below `root`, for a process whose mask is `cpus`. What
/// can't be read limits nothing; a processor whose siblings are not known counts as a core.
CpuTopology read_cpu_topology(const std::filesystem::path& root, const std::vector<int>& cpus);

}  // namespace dsctl::engine
