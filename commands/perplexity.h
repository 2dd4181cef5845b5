// `dsctl perplexity`: how well a model foretells a text, and how far it is from another
// quantisation of itself. Chunks, scored tokens and sums are llama-perplexity's.
#pragma once

#include <filesystem>
#include <string>

#include "commands/console.h"
#include "commands/settings.h"

namespace dsctl::commands {

struct PerplexityOptions {
  std::string model;           // a name of the registry, or a file's path as in `show`
  std::filesystem::path text;  // empty with compare_to: the text is in that file
  int n_ctx = 512;             // tokens of a chunk; the second half is scored
  int max_chunks = 0;          // 0: all
  int n_threads = 0;           // 0: the settings', or one for each physical core
  bool reference_kernels = false;
  bool force = false;                // a `save_base` that exists is replaced
  std::filesystem::path save_base;   // writes the log-probabilities for a later comparison
  std::filesystem::path compare_to;  // compares with such a file
  bool json = false;
};

/// Prints the perplexity (and the Kullback-Leibler divergence from the base). Returns the exit
/// code; throws Error, or that of the folder that found the fault.
int perplexity(const Settings& settings, const PerplexityOptions& options, Console& console);

}  // namespace dsctl::commands
