#include "commands/doctor.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/support/catch.h"
#include "tests/support/commands_store.h"
#include "tests/support/paths.h"
#include "tests/support/recording_console.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using Level = Finding::Level;

void write_file(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

size_t count(const std::vector<Finding>& findings, Level level) {
  return static_cast<size_t>(
      std::count_if(findings.begin(), findings.end(),
                    [level](const Finding& finding) { return finding.level == level; }));
}

TEST_CASE("doctor tells much memory from little") {
  const tests::TempDir root;
  CHECK(examine_memory(root.path()).at(0).level == Level::kWarning);
  write_file(root.path() / "proc/meminfo",
             "MemTotal:       65536000 kB\nMemFree: 1 kB\nMemAvailable:   60000000 kB\n");
  auto findings = examine_memory(root.path());
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].level == Level::kOk);
  CHECK_THAT(findings[0].text, Contains("67 GB") && Contains("61 GB available"));
  write_file(root.path() / "proc/meminfo", "MemTotal: 65536000 kB\nMemAvailable: 2000000 kB\n");
  CHECK(examine_memory(root.path()).at(0).level == Level::kWarning);
}

TEST_CASE("doctor sees the limit of a control group") {
  const tests::TempDir root;
  write_file(root.path() / "proc/meminfo", "MemTotal: 65536000 kB\nMemAvailable: 60000000 kB\n");
  const fs::path limit = root.path() / "sys/fs/cgroup/memory.max";
  write_file(limit, "max\n");
  CHECK(examine_memory(root.path()).size() == 1);
  write_file(limit, "8000000000\n");
  const auto findings = examine_memory(root.path());
  REQUIRE(findings.size() == 2);
  CHECK_THAT(findings[1].text, Contains("the control group allows 8 GB"));
  write_file(limit, "99999999999999\n");  // more than there is
  CHECK(examine_memory(root.path()).size() == 1);
}

TEST_CASE("doctor tells a missing card from a missing driver") {
  // No library: the machine may have a GPU of its own.
  ::setenv("DSCTL_CUDA_LIBRARY", "/nonexistent/libdsctl_cuda.so", 1);
  const tests::TempDir root;
  auto findings = examine_gpus(root.path());
  REQUIRE(findings.size() == 1);
  CHECK(findings[0].level == Level::kOk);
  CHECK_THAT(findings[0].text, Contains("no NVIDIA card is in the machine"));
  const fs::path devices = root.path() / "sys/bus/pci/devices";
  write_file(devices / "0000:00:01.0/vendor", "0x8086\n");
  write_file(devices / "0000:00:01.0/class", "0x030000\n");
  write_file(devices / "0000:00:02.0/vendor", "0x10de\n");
  write_file(devices / "0000:00:02.0/class", "0x040300\n");  // a card's sound
  CHECK(examine_gpus(root.path()).at(0).level == Level::kOk);
  write_file(devices / "0000:00:03.0/vendor", "0x10de\n");
  write_file(devices / "0000:00:03.0/class", "0x030200\n");
  findings = examine_gpus(root.path());
  CHECK(findings.at(0).level == Level::kWarning);
  CHECK_THAT(findings.at(0).text, Contains("NVIDIA cards in the machine: 1"));
  CHECK_THAT(findings.at(0).advice, Contains("install the NVIDIA driver"));
  write_file(root.path() / "proc/driver/nvidia/version", "NVRM version: 580\n");
  CHECK_THAT(examine_gpus(root.path()).at(0).advice, Contains("CUDA_VISIBLE_DEVICES"));
  ::unsetenv("DSCTL_CUDA_LIBRARY");
}

TEST_CASE("doctor examines the store") {
  const tests::TempDir dir;
  const fs::path root = dir.path() / "deep" / "models";
  auto findings = examine_store(root);
  CHECK_THAT(findings.at(0).text, Contains("not made yet"));
  CHECK(count(findings, Level::kError) == 0);
  CHECK(!fs::exists(root));  // looked at, not made

  fs::create_directories(root / "manifests/registry.ollama.ai/library/broken");
  write_file(root / "manifests/registry.ollama.ai/library/broken/latest", "{");
  write_file(root / "blobs" / ("sha256-" + std::string(64, 'a')), "nobody's");
  findings = examine_store(root);
  CHECK(count(findings, Level::kError) == 1);
  const auto broken = std::find_if(findings.begin(), findings.end(), [](const Finding& finding) {
    return finding.level == Level::kError;
  });
  CHECK_THAT(broken->text, Contains("broken"));
}

TEST_CASE("doctor says that a store can't be written to") {
  if (::geteuid() == 0) return;  // root may write everywhere
  const tests::TempDir dir;
  const fs::path root = dir.path() / "models";
  fs::create_directory(root);
  ::chmod(root.c_str(), 0555);
  const auto findings = examine_store(root);
  CHECK(findings.at(0).level == Level::kWarning);
  CHECK_THAT(findings.at(0).text, Contains("can't be written to"));
  ::chmod(root.c_str(), 0755);
}

TEST_CASE("doctor reports for people and for programs") {
  const tests::TempDir dir;
  Settings settings;
  settings.models_dir = dir.path() / "models";
  settings.port = 1;  // nobody may listen there
  DoctorOptions options;
  options.offline = true;
  tests::RecordingConsole console;
  CHECK(doctor(options, settings, console) == 0);
  CHECK_THAT(console.printed, Contains("processor") && Contains("none runs at"));
  options.json = true;
  tests::RecordingConsole json_console;
  CHECK(doctor(options, settings, json_console) == 0);
  const auto list = nlohmann::json::parse(json_console.printed);
  REQUIRE(list.is_array());
  CHECK(list.at(0).at("subject") == "processor");
  // A store that can't be there is an error, and the exit code says so.
  write_file(dir.path() / "file", "x");
  settings.models_dir = dir.path() / "file" / "models";
  tests::RecordingConsole failing_console;
  CHECK(doctor(options, settings, failing_console) == 1);
}

}  // namespace
}  // namespace dsctl::commands
