#include "engine/cpu/cpu_topology.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>
#include <string>

namespace dsctl::engine {
namespace {

namespace fs = std::filesystem;

std::string read_line(const fs::path& path) {
  std::ifstream in(path);
  std::string line;
  std::getline(in, line);
  return line;
}

int count_cores(const fs::path& root, const std::vector<int>& cpus) {
  std::set<std::string> cores;
  int n_unknown = 0;
  for (const int cpu : cpus) {
    const fs::path topology =
        root / "sys/devices/system/cpu" / ("cpu" + std::to_string(cpu)) / "topology";
    const std::string siblings = read_line(topology / "thread_siblings_list");
    if (siblings.empty()) {
      ++n_unknown;
    } else {
      cores.insert(siblings);
    }
  }
  return std::max(1, static_cast<int>(cores.size()) + n_unknown);
}

/// A group's place in a hierarchy: the path in its line of /proc/self/cgroup.
struct Group {
  bool is_v2 = false;
  fs::path path;
};

/// The groups that may limit the processor's time. A line is "0::/a/b", or "4:cpu,cpuacct:/a/b".
std::vector<Group> read_groups(const fs::path& root) {
  std::vector<Group> groups;
  std::ifstream in(root / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers != ",," && controllers.find(",cpu,") == std::string::npos) continue;
    Group group{controllers == ",,", fs::path(line.substr(second + 1)).relative_path()};
    // Outside of the group namespace's root, which is all that is mounted.
    const bool is_outside =
        std::find(group.path.begin(), group.path.end(), "..") != group.path.end();
    if (is_outside) group.path.clear();
    groups.push_back(std::move(group));
  }
  return groups;
}

std::optional<double> ratio(const std::string& quota, const std::string& period) {
  const double used = std::atof(quota.c_str());  // "max" and "-1": no limit
  const double whole = std::atof(period.c_str());
  if (!(used > 0.0) || !(whole > 0.0)) return std::nullopt;
  return used / whole;
}

std::optional<double> read_quota(const fs::path& directory, bool is_v2) {
  if (!is_v2) {
    return ratio(read_line(directory / "cpu.cfs_quota_us"),
                 read_line(directory / "cpu.cfs_period_us"));
  }
  std::istringstream line(read_line(directory / "cpu.max"));
  std::string quota;
  std::string period;
  line >> quota >> period;
  return ratio(quota, period);
}

/// The smallest quota of a group and those that hold it. Inside a container a path may be the
/// host's, which does not exist here: then only the mount's own limit is found, which is the
/// container's.
std::optional<double> smallest_quota(const fs::path& mount, const Group& group) {
  std::optional<double> smallest;
  for (fs::path path = group.path;; path = path.parent_path()) {
    const std::optional<double> quota = read_quota(mount / path, group.is_v2);
    if (quota && (!smallest || *quota < *smallest)) smallest = quota;
    if (path.empty()) return smallest;
  }
}

}  // namespace

int CpuTopology::n_threads() const {
  if (!quota || *quota >= n_cores) return n_cores;
  return std::max(1, static_cast<int>(std::lround(*quota)));
}

std::vector<int> affinity_cpus() {
  // The kernel refuses masks shorter than its own.
  for (int n_cpus = CPU_SETSIZE; n_cpus <= 1 << 20; n_cpus *= 2) {
    const size_t size_bytes = CPU_ALLOC_SIZE(n_cpus);
    cpu_set_t* mask = CPU_ALLOC(n_cpus);
    if (mask == nullptr) return {};
    CPU_ZERO_S(size_bytes, mask);
    std::vector<int> cpus;
    const bool is_known = sched_getaffinity(0, size_bytes, mask) == 0;
    const bool is_too_short = !is_known && errno == EINVAL;
    for (int cpu = 0; is_known && cpu < n_cpus; ++cpu) {
      if (CPU_ISSET_S(cpu, size_bytes, mask)) cpus.push_back(cpu);
    }
    CPU_FREE(mask);
    if (!is_too_short) return cpus;
  }
  return {};
}

CpuTopology read_cpu_topology(const fs::path& root, const std::vector<int>& cpus) {
  CpuTopology topology;
  topology.n_cores = count_cores(root, cpus);
  const fs::path mounts = root / "sys/fs/cgroup";
  for (const Group& group : read_groups(root)) {
    for (const char* mount : {"", "unified", "cpu", "cpu,cpuacct"}) {
      const bool is_v2_mount = *mount == '\0' || *mount == 'u';
      if (is_v2_mount != group.is_v2) continue;
      const std::optional<double> quota = smallest_quota(mounts / mount, group);
      if (quota && (!topology.quota || *quota < *topology.quota)) topology.quota = quota;
    }
  }
  return topology;
}

}  // namespace dsctl::engine
