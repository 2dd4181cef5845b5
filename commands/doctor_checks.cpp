// What doctor looks at.
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <fstream>
#include <future>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <thread>

#include "commands/doctor.h"
#include "commands/error.h"
#include "commands/model_info.h"
#include "commands/serve/client.h"
#include "commands/version.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cuda/cuda_library.h"
#include "registry/error.h"
#include "registry/http.h"
#include "registry/prune.h"
#include "registry/registry.h"
#include "registry/sources/source.h"

namespace dsctl::commands {
namespace {

namespace fs = std::filesystem;
using Level = Finding::Level;

constexpr int64_t kGib = int64_t{1} << 30;
constexpr int64_t kSmallMemoryBytes = 4 * kGib;
constexpr int64_t kSmallDiskBytes = 20'000'000'000;
constexpr rlim_t kWantedFiles = 1024;  // a server with a few hundred clients
constexpr size_t kMaxSystemFileBytes = 64 << 10;

/// A small file of proc or sys; empty when there is none.
std::string read_system_file(const fs::path& path) {
  std::ifstream file(path);
  std::string text(kMaxSystemFileBytes, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return text;
}

std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

/// "MemAvailable:" of meminfo, in bytes.
std::optional<int64_t> memory_of(const std::string& meminfo, std::string_view key) {
  std::istringstream lines(meminfo);
  std::string line;
  while (std::getline(lines, line)) {
    if (!line.starts_with(key)) continue;
    int64_t kibibytes = 0;
    std::istringstream(line.substr(key.size())) >> kibibytes;
    return kibibytes * 1024;
  }
  return std::nullopt;
}

/// The limit that this process's control group sets to its memory, if it sets one.
std::optional<int64_t> group_limit(const fs::path& root) {
  for (const char* path :
       {"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    const std::string text = first_line(read_system_file(root / path));
    if (text.empty() || text == "max") continue;
    int64_t bytes = 0;
    std::istringstream(text) >> bytes;
    if (bytes > 0 && bytes < (int64_t{1} << 60)) return bytes;
  }
  return std::nullopt;
}

/// NVIDIA's display and compute controllers on the PCI bus.
int count_nvidia_cards(const fs::path& root) {
  int n = 0;
  std::error_code error;
  for (fs::directory_iterator device(root / "sys/bus/pci/devices", error), end;
       !error && device != end; device.increment(error)) {
    const std::string vendor = first_line(read_system_file(device->path() / "vendor"));
    const std::string device_class = first_line(read_system_file(device->path() / "class"));
    n += vendor == "0x10de" && device_class.starts_with("0x03") ? 1 : 0;
  }
  return n;
}

bool is_denied(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd >= 0) ::close(fd);
  return fd < 0 && (errno == EACCES || errno == EPERM);
}

/// What to do where CUDA finds no device.
std::string gpu_advice(const fs::path& root, int n_cards) {
  if (n_cards == 0 && !fs::exists(root / "dev/nvidiactl")) return "";
  if (!fs::exists(root / "proc/driver/nvidia/version")) {
    return "a card is there and its driver is not: install the NVIDIA driver (cuda-drivers), "
           "restart, and see that `nvidia-smi` lists the card";
  }
  if (is_denied(root / "dev/nvidiactl")) {
    return "this user may not open /dev/nvidiactl: add the user to the group that owns it, often "
           "`video`";
  }
  return "see that `nvidia-smi` lists the card, and that CUDA_VISIBLE_DEVICES does not hide it";
}

Finding device_finding(const engine::CudaDevice& device) {
  std::string text = std::to_string(device.index) + ": " + device.name + ", " +
                     format_size(device.total_bytes) + ", " + format_size(device.free_bytes) +
                     " free, compute " + std::to_string(device.compute_major) + "." +
                     std::to_string(device.compute_minor);
  if (device.free_bytes < device.total_bytes - device.total_bytes / 10) {
    return {Level::kWarning, "gpu", std::move(text),
            "other programs use this card's memory: `nvidia-smi` names them"};
  }
  return {Level::kOk, "gpu", std::move(text), ""};
}

/// The nearest directory above `path` that exists.
fs::path existing_parent(fs::path path) {
  std::error_code error;
  while (path.has_relative_path() && !fs::exists(path, error))
    path = path.parent_path();
  return path.empty() ? fs::path("/") : path;
}

/// A warning about file systems whose locks or links can't be relied on.
std::optional<Finding> file_system_finding(const fs::path& dir) {
  struct statfs status {};
  if (::statfs(dir.c_str(), &status) != 0) return std::nullopt;
  if (status.f_type == NFS_SUPER_MAGIC) {
    return Finding{Level::kWarning, "store", "is on NFS",
                   "loading from it is as fast as the network; a local disk is better"};
  }
  if (status.f_type == TMPFS_MAGIC) {
    return Finding{Level::kWarning, "store", "is in memory (tmpfs)",
                   "its models are lost when the machine is turned off"};
  }
  return std::nullopt;
}

void examine_space(const fs::path& dir, std::vector<Finding>& findings) {
  std::error_code error;
  const fs::space_info space = fs::space(dir, error);
  if (error) {
    findings.push_back({Level::kError, "store",
                        dir.string() + ": free space can't be told: " + error.message(), ""});
    return;
  }
  const auto free_bytes = static_cast<int64_t>(space.available);
  const std::string text = format_size(free_bytes) + " of " +
                           format_size(static_cast<int64_t>(space.capacity)) + " are free";
  if (free_bytes < kSmallDiskBytes) {
    findings.push_back({Level::kWarning, "disk", text,
                        "little room for models: `dsctl prune` frees what no model needs, "
                        "--models or DSCTL_MODELS puts the store elsewhere"});
  } else {
    findings.push_back({Level::kOk, "disk", text, ""});
  }
}

Finding hub_finding(const std::string& name, const std::string& endpoint) {
  registry::HttpOptions http;
  http.connect_timeout_ms = 4000;
  http.stall_timeout_ms = 4000;
  const auto start = std::chrono::steady_clock::now();
  try {
    registry::HttpClient client(http);
    const registry::HttpResponse response =
        client.send({.method = "HEAD", .url = endpoint + "/", .retries = 0});
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                        std::chrono::steady_clock::now() - start)
                        .count();
    if (response.status >= 500) {
      return {Level::kWarning, "hub",
              name + ": " + endpoint + " answers with status " + std::to_string(response.status),
              "try again later, or pull with another --source"};
    }
    return {Level::kOk, "hub", name + ": answers in " + std::to_string(ms) + " ms", ""};
  } catch (const registry::Error& error) {
    return {Level::kWarning, "hub", name + ": " + error.what(),
            "a machine behind a proxy needs https_proxy; `dsctl pull --source` asks another hub"};
  }
}

}  // namespace

std::vector<Finding> examine_processor(const fs::path& system_root) {
  const engine::CpuFeatures& features = engine::cpu_features();
  std::vector<Finding> findings;
  if (features.avx2 || features.avx512_vnni) {
    findings.push_back({Level::kOk, "processor", features.description(), ""});
  } else {
    findings.push_back({Level::kWarning, "processor", features.description(),
                        "without AVX2 the plain kernels are used, many times slower"});
  }
  const std::string governor = first_line(
      read_system_file(system_root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"));
  if (governor == "powersave") {
    findings.push_back({Level::kWarning, "processor", "its clock is governed to save power",
                        "`cpupower frequency-set -g performance` is faster"});
  }
  rlimit files{};
  if (::getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < kWantedFiles) {
    findings.push_back({Level::kWarning, "limits",
                        "a process may open " + std::to_string(files.rlim_cur) + " files",
                        "a server with many clients needs more: `ulimit -n 4096`"});
  }
  return findings;
}

std::vector<Finding> examine_memory(const fs::path& system_root) {
  const std::string meminfo = read_system_file(system_root / "proc/meminfo");
  const auto total = memory_of(meminfo, "MemTotal:");
  const auto available = memory_of(meminfo, "MemAvailable:");
  if (!total || !available) {
    return {{Level::kWarning, "memory", "its size can't be told: no usable /proc/meminfo", ""}};
  }
  std::vector<Finding> findings;
  const std::string text = format_size(*total) + ", " + format_size(*available) + " available";
  if (*available < kSmallMemoryBytes) {
    findings.push_back({Level::kWarning, "memory", text,
                        "models of more than about " + format_size(*available * 3 / 4) +
                            " will not run well on the processor"});
  } else {
    findings.push_back({Level::kOk, "memory", text, ""});
  }
  if (const auto limit = group_limit(system_root); limit && *limit < *total) {
    findings.push_back({Level::kWarning, "memory",
                        "the control group allows " + format_size(*limit),
                        "the system ends what takes more; raise it (docker run --memory, "
                        "systemd MemoryMax) for larger models"});
  }
  return findings;
}

std::vector<Finding> examine_gpus(const fs::path& system_root) {
  const engine::CudaStatus cuda = engine::query_cuda();
  const int n_cards = count_nvidia_cards(system_root);
  if (cuda.available) {
    std::vector<Finding> findings{
        {Level::kOk, "cuda", "driver " + cuda.driver_version + ", runtime " + cuda.runtime_version,
         ""}};
    for (const engine::CudaDevice& device : cuda.devices)
      findings.push_back(device_finding(device));
    if (n_cards > static_cast<int>(cuda.devices.size())) {
      findings.push_back({Level::kWarning, "gpu",
                          std::to_string(n_cards) +
                              " NVIDIA cards are in the machine, CUDA finds " +
                              std::to_string(cuda.devices.size()),
                          gpu_advice(system_root, n_cards)});
    }
    return findings;
  }
  // A machine without a card lacks nothing; one with a card does not use it.
  const std::string advice = gpu_advice(system_root, n_cards);
  return {{advice.empty() ? Level::kOk : Level::kWarning, "cuda",
           "not used: " + cuda.reason +
               (n_cards == 0 ? "; no NVIDIA card is in the machine"
                             : "; NVIDIA cards in the machine: " + std::to_string(n_cards)),
           advice}};
}

std::vector<Finding> examine_store(const fs::path& models_dir) {
  std::vector<Finding> findings;
  const fs::path there = existing_parent(models_dir);
  if (::access(there.c_str(), R_OK | X_OK) != 0) {
    findings.push_back({Level::kError, "store",
                        there.string() + ": can't be read: " + std::strerror(errno),
                        "give this user the right to, or name another one with --models or "
                        "DSCTL_MODELS"});
    return findings;
  }
  const bool is_new = there != models_dir;
  const bool writable = ::access(there.c_str(), W_OK) == 0;
  const registry::Registry store(models_dir);
  const registry::ModelList list = store.list();
  int64_t total_bytes = 0;
  for (const registry::ModelEntry& entry : list.models)
    total_bytes += entry.size_bytes;
  std::string text = models_dir.string() + ": ";
  text += is_new ? "not made yet"
                 : std::to_string(list.models.size()) + " models, " + format_size(total_bytes);
  if (writable) {
    findings.push_back({Level::kOk, "store", text, ""});
  } else {
    findings.push_back({is_new ? Level::kError : Level::kWarning, "store",
                        text + ", " + there.string() + " can't be written to by this user",
                        "its models run; pull and create need the right to write, or another "
                        "store (--models, DSCTL_MODELS)"});
  }
  for (const std::string& problem : list.problems) {
    findings.push_back({Level::kError, "store", problem, "pull or create this model again"});
  }
  if (const auto finding = file_system_finding(there)) findings.push_back(*finding);
  examine_space(there, findings);
  if (!is_new) {
    registry::PruneOptions dry_run;
    dry_run.mode = registry::PruneOptions::Mode::kDryRun;
    const registry::PruneResult unused = prune(store, dry_run, {});
    if (!unused.items.empty()) {
      findings.push_back({Level::kWarning, "store",
                          format_size(unused.freed_bytes) + " in it are of no use any more",
                          "`dsctl prune` frees them"});
    }
  }
  return findings;
}

std::vector<Finding> examine_server(const Settings& settings) {
  const serve::HttpClient client(settings.host, settings.port);
  if (!client.is_up(std::chrono::milliseconds(500))) {
    return {
        {Level::kOk, "server", "none runs at " + client.url() + " (`dsctl serve` starts one)", ""}};
  }
  std::string version;
  try {
    const auto body = nlohmann::json::parse(client.request("GET", "/api/version", "").body);
    version = body.value("version", "");
  } catch (const std::exception&) {
    version.clear();  // no JSON, or no answer: some other program
  }
  if (version.empty()) {
    return {{Level::kWarning, "server", client.url() + ": another program listens there",
             "start the server on another port: `dsctl serve --port`"}};
  }
  return {{Level::kOk, "server", client.url() + ": version " + version, ""}};
}

std::vector<Finding> examine_hubs() {
  struct Hub {
    std::string name;
    std::string endpoint;
  };
  std::vector<Hub> hubs;
  for (const auto& [name, reference, source] :
       {std::array{"Hugging Face", "a/b", "hf"}, std::array{"ModelScope", "a/b", "modelscope"},
        std::array{"Ollama", "a", "ollama"}}) {
    hubs.push_back({name, registry::RemoteRef::parse(reference, source).endpoint});
  }
  std::vector<std::future<Finding>> answers;
  for (const Hub& hub : hubs) {
    answers.push_back(std::async(std::launch::async, hub_finding, hub.name, hub.endpoint));
  }
  std::vector<Finding> findings;
  for (std::future<Finding>& answer : answers)
    findings.push_back(answer.get());
  return findings;
}

}  // namespace dsctl::commands
