// `dsctl convert`: a directory of safetensors becomes a GGUF file.
#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "commands/console.h"
#include "gguf/convert/convert.h"

namespace dsctl::commands {

enum class DryRun { kNo, kYes };

struct ConvertOptions {
  std::filesystem::path dir;      // the checkpoint
  std::filesystem::path out;      // the GGUF file; may be empty when nothing is written
  bool force = false;             // an `out` that exists is replaced
  std::string out_type = "auto";  // auto, f32, f16, bf16, q8_0
  std::string quantize;           // a type of GGUF, "" for none
  bool inexact = false;
  std::string name;
  std::string pre_tokenizer;
  int n_threads = 0;
  DryRun dry_run = DryRun::kNo;
  bool json = false;
};

/// Converts, with progress; Ctrl-C leaves nothing behind. A dry run lists the tensors that would be
/// written. JSON: {"path", "architecture", "size", "tensors": [{"name", "source", "from", "type",
/// "dims", "size"}]}. Returns the exit code; throws commands::Error or gguf::Error.
int convert(const ConvertOptions& options, Console& console);

/// The conversion that `options` ask for: planned, nothing written.
gguf::convert::Conversion plan_conversion(const ConvertOptions& options);

/// Writes `conversion` to `path` with a line of progress, notes first; Ctrl-C throws Error.
void write_conversion(const gguf::convert::Conversion& conversion,
                      const std::filesystem::path& path, Console& console);

}  // namespace dsctl::commands
