// doctor: looks at everything that has to be right on this machine before models can be fetched and
// run, and says what to do about what isn't.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct Finding {
  enum class Level { kOk, kWarning, kError };  // kError: models can't be stored or run
  Level level = Level::kOk;
  std::string subject;  // "processor", "store"
  std::string text;     // what was found
  std::string advice;   // what to do; empty: nothing
};

struct DoctorOptions {
  bool offline = false;  // ask no hub
  bool json = false;
  std::filesystem::path system_root = "/";  // where proc, sys and dev are: another one for tests
};

/// The processor, the memory and the limits that the system sets to processes.
std::vector<Finding> examine_processor(const std::filesystem::path& system_root);
std::vector<Finding> examine_memory(const std::filesystem::path& system_root);
/// GPUs, their driver and the CUDA library; where the library finds none, the reason.
std::vector<Finding> examine_gpus(const std::filesystem::path& system_root);
/// The model store: whether it can be read and written, free space, manifests that can't be read,
/// what interrupted commands left.
std::vector<Finding> examine_store(const std::filesystem::path& models_dir);
/// Whether a server answers where `settings` point.
std::vector<Finding> examine_server(const Settings& settings);
/// Whether the hubs can be reached, all asked at once.
std::vector<Finding> examine_hubs();

/// Prints the findings. Returns 1 when one of them is an error.
int doctor(const DoctorOptions& options, const Settings& settings, Console& console);

}  // namespace dsctl::commands
