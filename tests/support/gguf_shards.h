// Small split models for tests that merge and split, and the files that llama-gguf-split made.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "gguf/gguf_writer.h"

namespace dsctl::tests {

/// tests/golden/gguf/split.
std::filesystem::path golden_shards();

/// Copies the golden files whose names start with `prefix` to `directory`; their new paths, sorted.
std::vector<std::filesystem::path> copy_shards(const std::string& prefix,
                                               const std::filesystem::path& directory);

/// Writes a model of `n_tensors` tensors of random bytes, some with sizes that need padding, as
/// shards of two tensors each.
std::vector<std::filesystem::path> write_shards(const std::filesystem::path& directory,
                                                const std::string& prefix, int n_tensors,
                                                int64_t tensor_bytes = 5000);

/// Names in `directory`, sorted.
std::vector<std::string> names_in(const std::filesystem::path& directory);

}  // namespace dsctl::tests
