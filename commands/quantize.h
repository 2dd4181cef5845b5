// `dsctl quantize`: a model in fewer bits.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "commands/console.h"
#include "commands/settings.h"
#include "gguf/gguf_file.h"
#include "gguf/quantize.h"

namespace dsctl::commands {

struct QuantizeOptions {
  std::string model;                      // a name of the registry, or a file's path as in `show`
  std::string out;                        // the GGUF file to write, or to replace with `force`
  std::string type;                       // "Q4_K_M"
  std::filesystem::path imatrix;          // empty: none
  std::string output_tensor_type;         // of output.weight; empty: as the type says
  std::string token_embedding_type;       // of token_embd.weight; likewise
  std::vector<std::string> tensor_types;  // "PATTERN=TYPE"
  bool pure = false;
  bool leave_output_tensor = false;
  bool allow_requantize = false;
  bool keep_split = false;
  bool dry_run = false;
  bool force = false;
  int n_threads = 0;  // 0: one for each processor
};

/// Quantises, with progress and a summary; a dry run prints each tensor's type and size instead and
/// writes nothing. Returns the exit code; throws Error, or that of the folder that found the fault.
int quantize(const Settings& settings, const QuantizeOptions& options, Console& console);

/// The type called `name`, in any case; throws Error with those that there are.
gguf::FileType parse_file_type(const std::string& name);

/// Writes `plan` of `file` to gguf::result_paths of `out`, with progress; notes say what could not
/// be done as asked, and the sizes. Ctrl-C leaves nothing. `n_threads` 0: one for each processor.
std::vector<std::filesystem::path> write_quantized(const gguf::GgufFile& file,
                                                   const gguf::QuantizePlan& plan,
                                                   const std::filesystem::path& out, int n_threads,
                                                   Console& console);

/// The types that `quantize` takes, with what they mean, one a line; for --help.
std::string quantize_types_help();

}  // namespace dsctl::commands
