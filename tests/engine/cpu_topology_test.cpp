#include "engine/cpu/cpu_topology.h"

#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include "engine/cpu/cpu_features.h"
#include "tests/support/catch.h"
#include "tests/support/paths.h"

namespace dsctl::engine {
namespace {

namespace fs = std::filesystem;

/// A machine's files below a directory of the test's own.
class FakeMachine {
 public:
  void write(const std::string& path, const std::string& text) const {
    fs::create_directories((dir_.path() / path).parent_path());
    std::ofstream(dir_.path() / path) << text << "\n";
  }
  /// Hardware thread `cpu` of the core with these.
  void add_cpu(int cpu, const std::string& siblings) const {
    write("sys/devices/system/cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
          siblings);
  }
  /// Two threads a core, numbered as most machines do: i and i + n_cores.
  void add_smt_cores(int n_cores) const {
    for (int i = 0; i < n_cores; ++i) {
      const std::string siblings = std::to_string(i) + "," + std::to_string(i + n_cores);
      add_cpu(i, siblings);
      add_cpu(i + n_cores, siblings);
    }
  }
  CpuTopology read(const std::vector<int>& cpus) const {
    return read_cpu_topology(dir_.path(), cpus);
  }

 private:
  tests::TempDir dir_;
};

std::vector<int> first_cpus(int n) {
  std::vector<int> cpus(static_cast<size_t>(n));
  std::iota(cpus.begin(), cpus.end(), 0);
  return cpus;
}

TEST_CASE("cpu topology counts cores, not their hardware threads") {
  const FakeMachine machine;
  machine.add_smt_cores(8);
  CHECK(machine.read(first_cpus(16)).n_cores == 8);
  CHECK(machine.read(first_cpus(16)).n_threads() == 8);
  CHECK_FALSE(machine.read(first_cpus(16)).quota);
}

TEST_CASE("cpu topology counts only cores that the affinity mask reaches") {
  const FakeMachine machine;
  machine.add_smt_cores(8);
  CHECK(machine.read({0, 1, 2}).n_threads() == 3);
  CHECK(machine.read({0, 8}).n_threads() == 1);  // both threads of one core
  CHECK(machine.read({7, 15, 3}).n_threads() == 2);
}

TEST_CASE("cpu topology takes a processor without known siblings for a core") {
  const FakeMachine machine;
  CHECK(machine.read(first_cpus(3)).n_threads() == 3);
  CHECK(machine.read({}).n_threads() == 1);
}

TEST_CASE("cpu topology keeps to the quota of a version 2 control group") {
  const FakeMachine machine;
  machine.add_smt_cores(8);
  machine.write("proc/self/cgroup", "0::/");
  machine.write("sys/fs/cgroup/cpu.max", "300000 100000");
  const CpuTopology topology = machine.read(first_cpus(16));
  REQUIRE(topology.quota);
  CHECK(*topology.quota == 3.0);
  CHECK(topology.n_cores == 8);
  CHECK(topology.n_threads() == 3);
}

TEST_CASE("cpu topology rounds a quota to the nearest thread, and to one at least") {
  const FakeMachine machine;
  machine.add_smt_cores(8);
  machine.write("proc/self/cgroup", "0::/");
  const auto threads_with = [&](const std::string& limit) {
    machine.write("sys/fs/cgroup/cpu.max", limit);
    return machine.read(first_cpus(16)).n_threads();
  };
  CHECK(threads_with("20000 100000") == 1);
  CHECK(threads_with("140000 100000") == 1);
  CHECK(threads_with("160000 100000") == 2);
  CHECK(threads_with("max 100000") == 8);
  CHECK(threads_with("6400000 100000") == 8);
  CHECK(threads_with("") == 8);
  CHECK(threads_with("nonsense") == 8);
  CHECK(threads_with("0 0") == 8);
}

TEST_CASE("cpu topology takes the smallest quota of the groups above its own") {
  const FakeMachine machine;
  machine.add_smt_cores(8);
  machine.write("proc/self/cgroup", "0::/user.slice/work.scope");
  machine.write("sys/fs/cgroup/user.slice/work.scope/cpu.max", "600000 100000");
  CHECK(machine.read(first_cpus(16)).n_threads() == 6);
  machine.write("sys/fs/cgroup/user.slice/cpu.max", "200000 100000");
  CHECK(machine.read(first_cpus(16)).n_threads() == 2);
}

TEST_CASE("cpu topology reads the quota of a version 1 control group") {
  const FakeMachine machine;
  machine.add_smt_cores(8);
  machine.write("proc/self/cgroup", "9:cpuset:/\n4:cpu,cpuacct:/docker/0123\n0::/");
  // Inside a container the host's path does not exist; the mount is the container's group.
  machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "250000");
  machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "50000");
  CHECK(machine.read(first_cpus(16)).n_threads() == 5);
  machine.write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "-1");
  CHECK(machine.read(first_cpus(16)).n_threads() == 8);
}

TEST_CASE("cpu topology stays below the mount when the group lies outside of it") {
  const FakeMachine machine;
  machine.add_smt_cores(4);
  machine.write("proc/self/cgroup", "0::/../../elsewhere");
  machine.write("sys/elsewhere/cpu.max", "100000 100000");
  machine.write("elsewhere/cpu.max", "100000 100000");
  CHECK(machine.read(first_cpus(8)).n_threads() == 4);
  machine.write("sys/fs/cgroup/cpu.max", "200000 100000");
  CHECK(machine.read(first_cpus(8)).n_threads() == 2);
}

TEST_CASE("cpu topology ignores lines of proc/self/cgroup that it does not understand") {
  const FakeMachine machine;
  machine.add_smt_cores(4);
  machine.write("proc/self/cgroup", "\nno colon\n1:one\n::\n7:cpuset,memory:/x");
  machine.write("sys/fs/cgroup/x/cpu.max", "100000 100000");
  CHECK(machine.read(first_cpus(8)).n_threads() == 4);
}

TEST_CASE("cpu topology of this machine is within its processors") {
  const std::vector<int> cpus = affinity_cpus();
  REQUIRE_FALSE(cpus.empty());
  const CpuTopology topology = read_cpu_topology("/", cpus);
  CHECK(topology.n_threads() >= 1);
  CHECK(topology.n_threads() <= static_cast<int>(cpus.size()));
  CHECK(cpu_features().n_physical_cores == topology.n_threads());
}

}  // namespace
}  // namespace dsctl::engine
