// Quantising a model: read, choose a type for each tensor, convert the rows on all cores and stream
// them out. A plan comes first; it says all that will happen before a byte is written.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "gguf/gguf_file.h"
#include "gguf/imatrix.h"
#include "gguf/quant_mixture.h"

namespace dsctl::gguf {

struct QuantizeOptions {
  FileType file_type;
  MixtureOptions mixture;  // has_matrix is set by plan_quantize
  /// Importance of the columns; null: none. It outlives the plan.
  const ImportanceMatrix* matrix = nullptr;
  std::string matrix_name;        // the file's, for the metadata
  bool allow_requantize = false;  // sources that are quantised already; else an Error
  bool keep_split = false;        // one file for each shard of the source
};

/// What happens to one tensor.
struct QuantizeStep {
  TensorInfo source;  // of the file that was planned for
  TypeChoice choice;
  int64_t size_bytes = 0;         // when done
  std::vector<float> importance;  // (n_matrices, n_cols) or empty
  bool is_requantized = false;    // was quantised, and changes
  bool lacks_importance = false;  // changes, and the matrix that was given has nothing for it
  size_t shard_idx = 0;           // of the result
  size_t tensor_idx = 0;          // within that shard
};

struct QuantizePlan {
  QuantizeOptions options;
  std::vector<QuantizeStep> steps;  // in the order of the result
  int n_shards = 1;
  int64_t source_bytes = 0;  // of all tensors
  int64_t result_bytes = 0;
};

/// Throws Error when a type can't be written, a requantisation is not allowed, the matrix does not
/// fit the model, or a type needs a matrix and there is none.
QuantizePlan plan_quantize(const GgufFile& file, const QuantizeOptions& options);

struct QuantizeRun {
  int n_threads = 0;  // 0: one for each processor
  /// Told now and then on the caller's thread; false stops, and quantise throws Error.
  std::function<bool(int64_t done_bytes, int64_t total_bytes)> progress = {};
};

/// The files that `plan` becomes: `path`, or with several shards
/// `<path without .gguf>-NNNNN-of-NNNNN.gguf`.
std::vector<std::filesystem::path> result_paths(const QuantizePlan& plan,
                                                const std::filesystem::path& path);

/// Carries out the plan for `file`: writes its result_paths, over what is there, and returns them.
/// The bytes do not depend
/// on the number of threads. Memory: a few MiB a thread. Throws Error, also for a value that is not
/// finite; nothing is left behind then.
std::vector<std::filesystem::path> quantize(const GgufFile& file, const QuantizePlan& plan,
                                            const std::filesystem::path& path,
                                            const QuantizeRun& run);

}  // namespace dsctl::gguf
