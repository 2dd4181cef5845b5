// `dsctl export` and `dsctl import`: models as one tar file, for machines without a network.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct ExportOptions {
  std::vector<std::string> names;
  std::filesystem::path output;  // "-": standard output
  bool force = false;            // replace a file that exists
  bool json = false;
};

/// Writes the models into one archive. JSON, not with standard output: {"path", "models", "blobs",
/// "size"}. Ctrl-C leaves no file behind. Returns the exit code.
int export_archive(const Settings& settings, const ExportOptions& options, Console& console);

struct ImportOptions {
  std::filesystem::path input;  // "-": standard input
  bool json = false;
};

/// Brings the models of an archive into the store, all or none. JSON: {"models", "new_blobs",
/// "new_bytes", "known_blobs"}. Returns the exit code.
int import_archive(const Settings& settings, const ImportOptions& options, Console& console);

}  // namespace dsctl::commands
