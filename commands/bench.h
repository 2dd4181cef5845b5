// `dsctl bench MODEL`: how fast the engine of this process is on this machine, in tokens a second
// and in percent of what the memory allows.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "commands/bench_report.h"
#include "commands/console.h"
#include "commands/settings.h"
#include "engine/engine.h"

namespace dsctl::commands {

enum class LoadFormat { kFile, kDummy };

struct BenchOptions {
  /// A name of the registry, or a file's path as in `show`; with kDummy also a shape's name.
  std::string model;
  std::vector<int> n_prompt{512};  // 0: no such test
  std::vector<int> n_gen{128};     // 0: no such test
  std::vector<int> n_seqs{1};
  std::vector<int> depths{0};
  int repetitions = 5;
  int n_threads = 0;  // 0: the settings', or one for each physical core
  int n_batch = 512;  // tokens of one step of a prompt
  bool warm_up = true;
  engine::Device device = engine::Device::kAuto;
  LoadFormat load_format = LoadFormat::kFile;
  int n_layers = 0;  // kDummy: so many layers; 0: all
  std::vector<std::string> loras;
  ReportForm form = ReportForm::kMarkdown;
};

/// What is measured with these options, in order: of each depth and number of sequences the
/// prompts, then the generations.
std::vector<BenchCase> bench_cases(const BenchOptions& options);

/// Measures and prints. Returns the exit code, 130 when interrupted; throws Error, or that of the
/// folder that found the fault.
int bench(const Settings& settings, const BenchOptions& options, Console& console);

}  // namespace dsctl::commands
