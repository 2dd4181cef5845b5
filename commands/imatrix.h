// `dsctl imatrix`: the importance matrix of a model, from a text run through it.
#pragma once

#include <filesystem>
#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct ImatrixOptions {
  std::string model;  // a name of the registry, or a file's path as in `show`
  std::filesystem::path text;
  std::filesystem::path out = "imatrix.gguf";
  bool force = false;           // an `out` that exists is replaced
  int n_ctx = 512;              // tokens of a chunk
  int max_chunks = 0;           // 0: all
  int n_threads = 0;            // 0: the settings', or one for each physical core
  bool process_output = false;  // the output matrix too
};

/// Writes the matrix, in llama.cpp's GGUF form. Ctrl-C leaves nothing behind. Returns the exit
/// code; throws Error, or that of the folder that found the fault.
int imatrix(const Settings& settings, const ImatrixOptions& options, Console& console);

}  // namespace dsctl::commands
