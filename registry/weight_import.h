// Imports the files of a model, several at once: hashing is bound by one core's SHA-256, a split
// model has many files, and a disk that serves more than one core is common.
#pragma once

#include <filesystem>
#include <vector>

#include "registry/blob_store.h"

namespace dsctl::registry {

/// Stages `paths` in order. `progress` is told of all of them together and called by one thread at
/// a time; what it throws stops all and is thrown here.
std::vector<StagedBlob> stage_files(Staging& staging,
                                    const std::vector<std::filesystem::path>& paths,
                                    ImportMode mode, const Progress& progress);

}  // namespace dsctl::registry
