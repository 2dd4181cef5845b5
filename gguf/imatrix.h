// ImportanceMatrix: for each weight of a model, how much the inputs of each column weigh. Made by
// running a text through the model (`dsctl imatrix`, llama-imatrix), used to quantise it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dsctl::gguf {

/// One weight's statistics: of one matrix, or of each expert's.
struct ImportanceEntry {
  std::string name;           // of the weight: "blk.0.attn_q.weight"
  int64_t n_cols = 0;         // inputs
  std::vector<float> sums;    // (n_matrices, n_cols) sum of the squared inputs
  std::vector<float> counts;  // (n_matrices) tokens that were seen; 0 for an expert never chosen

  int64_t n_matrices() const { return static_cast<int64_t>(counts.size()); }
};

struct ImportanceMatrix {
  std::vector<ImportanceEntry> entries;  // by name, ascending
  std::vector<std::string> datasets;     // the files that the inputs came from
  uint32_t n_chunks = 0;
  uint32_t chunk_tokens = 0;  // 0: unknown (the old form)

  /// Reads llama.cpp's GGUF form, or its old binary form (.dat). Throws Error naming the file, the
  /// entry and what is wrong: a number that is negative or not finite, sizes that don't fit.
  static ImportanceMatrix read(const std::filesystem::path& path);
  /// The old form from memory; `label` names it in errors.
  static ImportanceMatrix parse_legacy(std::span<const std::byte> bytes, const std::string& label);

  /// Writes the GGUF form, atomically. Throws Error.
  void write(const std::filesystem::path& path) const;

  const ImportanceEntry* find(std::string_view name) const;
};

/// The entry's mean squared inputs, (n_matrices, n_cols); 1 for a matrix that saw none.
std::vector<float> mean_squares(const ImportanceEntry& entry);

}  // namespace dsctl::gguf
